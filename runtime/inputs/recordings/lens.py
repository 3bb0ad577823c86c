"""What a `CameraInfo` says: focal lengths, centre, and how the lens bends what it shows."""

from typing import Any

import numpy as np

from ...errors import BadInput
from ..cameras.lens import Lens, colmap_lens

__all__ = ["INFO_TYPE", "read_lens"]

INFO_TYPE = "sensor_msgs/msg/CameraInfo"
MODELS = {
    "": "PINHOLE",
    "none": "PINHOLE",
    "plumb_bob": "FULL_OPENCV",
    "rational_polynomial": "FULL_OPENCV",
    "equidistant": "OPENCV_FISHEYE",
    "fisheye": "OPENCV_FISHEYE",
}
# ROS has OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6
FULL, FISHEYE = 8, 4


def read_lens(message: Any, source: str, *, rectified: bool) -> Lens:
    """The lens of a camera, in pixels of its images.

    Args:
        message: a `CameraInfo`.
        source: what messages call it.
        rectified: whether the images are straight already, so that its projection P counts, not K and D.

    Raises:
        BadInput: the camera was not calibrated, or its lens is of a kind that is not read.
    """
    fields = {name: np.asarray(getattr(message, name, getattr(message, name.lower(), ()))) for name in "KDP"}
    matrix = (fields["P"].reshape(3, 4) if rectified else fields["K"].reshape(3, 3)).astype(np.float64)
    if not matrix.any():
        name = "P" if rectified else "K"
        raise BadInput(f"{source}: its {name} is zero, the camera was not calibrated; give --intrinsics FILE")
    fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    # K is of all pixels of the sensor; images may be of a part, and of every so many
    roi, across, down = message.roi, max(1, int(message.binning_x)), max(1, int(message.binning_y))
    size = (int(message.width), int(message.height))
    if roi.width and roi.height:
        size = (int(roi.width), int(roi.height))
        cx, cy = cx - roi.x_offset, cy - roi.y_offset
    size = (size[0] // across, size[1] // down)
    straight = [fx / across, fy / down, cx / across, cy / down]
    bending = [] if rectified else [float(number) for number in fields["D"]]
    if not any(bending):
        return colmap_lens("PINHOLE", size if min(size) else None, straight, source)
    model = MODELS.get(message.distortion_model.strip().lower())
    most = {"FULL_OPENCV": FULL, "OPENCV_FISHEYE": FISHEYE}.get(model or "", 0)
    if len(bending) > most and (model is None or any(bending[most:])):
        raise BadInput(
            f"{source}: its lens is {message.distortion_model or 'nameless'} with {len(bending)} numbers, which is not "
            "read; give rectified images, or frames that are straight with --intrinsics FILE"
        )
    padded = (bending + [0.0] * FULL)[:most]
    return colmap_lens(str(model), size if min(size) else None, [*straight, *padded], source)
