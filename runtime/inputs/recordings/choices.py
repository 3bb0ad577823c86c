"""What of a recording is meant; imports nothing, since options of commands are made of it."""

from dataclasses import dataclass

__all__ = ["CLOUD_CHOICES", "BagChoices"]

CLOUD_CHOICES = ("auto", "all", "first", "last")


@dataclass(frozen=True)
class BagChoices:
    """What of a bag is meant; None takes the only one that there is, and what was taken is logged.

    Attributes:
        cloud_topic: of `sensor_msgs/PointCloud2`.
        image_topic: of `sensor_msgs/Image` or `CompressedImage`.
        info_topic: of the images' `sensor_msgs/CameraInfo`; by default the one beside them.
        pose_topic: of TF, odometry or stamped poses; by default TF where it moves the camera.
        pose_frame: what the poses of the topic are of; by default its messages' child frame, or else the camera.
        camera_frame: the camera's optical frame; by default the one in the images' headers.
        map_frame: that cloud and poses are brought into; by default the clouds' where the camera moves in it.
        clouds: which of the clouds: `all` in one, the `first`, the `last`, or the one at a place from 0; `auto` takes
            the last of a map, and all of a sensor that moves.
        begin: seconds since the recording began, from which on images are the clip's.
        end: seconds since the recording began, up to which they are.
    """

    cloud_topic: str | None = None
    image_topic: str | None = None
    info_topic: str | None = None
    pose_topic: str | None = None
    pose_frame: str | None = None
    camera_frame: str | None = None
    map_frame: str | None = None
    clouds: str = "auto"
    begin: float | None = None
    end: float | None = None
