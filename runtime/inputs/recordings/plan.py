"""What of a bag is taken: topics, frames, and the transforms between them, before anything large is read."""

import logging
from dataclasses import dataclass

from ...errors import BadInput
from .bag import Bag, Topic
from .choices import BagChoices
from .poses import POSE_TYPES, TF_TYPES, plain_frame, read_transforms
from .topics import cloud_topic, first_message, image_topic, info_topic, listed, named, of_types, pose_topics
from .transforms import Transforms

__all__ = ["Plan", "make_plan"]

LOG = logging.getLogger(__name__)
MAP, CAMERA = "map", "camera"


@dataclass(frozen=True)
class Plan:
    """What of a bag is taken.

    Attributes:
        images: topic.
        info: topic of the images' `CameraInfo`; None where intrinsics are given.
        poses: topic; None for TF.
        clouds: topic; None where the scene is given.
        camera: the camera's frame, with optical axes.
        cloud_frame: of the clouds; the map's where the scene is given.
        map_frame: that cloud and poses are brought into.
        transforms: between all frames.
    """

    images: Topic
    info: Topic | None
    poses: Topic | None
    clouds: Topic | None
    camera: str
    cloud_frame: str
    map_frame: str
    transforms: Transforms


def make_plan(bag: Bag, choices: BagChoices, *, scene: bool, intrinsics: bool) -> Plan:
    """Decide what is taken.

    Args:
        bag: the recording.
        choices: what is named.
        scene: whether the cloud is given, as a file.
        intrinsics: whether they are given.

    Raises:
        BadInput: something is missing, or there are several and none is named.
    """
    images = image_topic(bag, choices)
    info = None if intrinsics else info_topic(bag, choices, images)
    if info is None and not intrinsics:
        raise BadInput(f"{bag}: holds no CameraInfo for {images.name}; give --intrinsics FILE")
    clouds = None if scene else cloud_topic(bag, choices)
    camera = choices.camera_frame or plain_frame(first_message(bag, images).header.frame_id) or CAMERA
    poses, transforms = where_the_camera_is(bag, choices, camera)
    camera = choices.camera_frame or optical(transforms, camera)
    above = transforms.ancestors(camera)
    map_frame = choices.map_frame or (MAP if MAP in above else above[-1])
    cloud_frame = map_frame
    if clouds is not None:
        cloud_frame = plain_frame(first_message(bag, clouds).header.frame_id) or map_frame
        if choices.map_frame is None and cloud_frame in above and transforms.moves(camera, cloud_frame):
            map_frame = cloud_frame
        transforms.path(cloud_frame, map_frame)
    if not transforms.moves(camera, map_frame):
        LOG.warning("%s: the camera %s does not move in %s (--map-frame)", bag, camera, map_frame)
    LOG.info("%s: camera %s, map %s, poses from %s", bag, camera, map_frame, poses or "TF")
    return Plan(images, info, poses, clouds, camera, cloud_frame, map_frame, transforms)


def where_the_camera_is(bag: Bag, choices: BagChoices, camera: str) -> tuple[Topic | None, Transforms]:
    """The topic of poses, None for TF, and all transforms."""
    tf, others = of_types(bag, TF_TYPES), pose_topics(bag)
    if choices.pose_topic is not None:
        topic = named(bag, "--pose-topic", choices.pose_topic, (*TF_TYPES, *POSE_TYPES))
    else:
        transforms = read_transforms(bag)
        above = transforms.ancestors(camera)
        if camera in transforms.frames and (transforms.moves(camera, above[-1]) or not others):
            return None, transforms
        if len(others) != 1:
            kinds = ", ".join(kind.rpartition("/")[2] for kind in ("TFMessage", *POSE_TYPES))
            if tf and not others:
                frames = ", ".join(sorted(transforms.frames))
                raise BadInput(f"{bag}: TF does not say where {camera} is; give --camera-frame, one of {frames}")
            mend = f"give --pose-topic, one of {listed([*tf, *others])}" if others else "record /tf and /tf_static"
            raise BadInput(f"{bag}: nothing of {kinds} says alone where {camera} is; {mend}")
        topic = others[0]
    transforms = read_transforms(bag, topic, choices.pose_frame or "", camera)
    if topic.type in POSE_TYPES and not choices.pose_frame:
        child = plain_frame(getattr(first_message(bag, topic), "child_frame_id", ""))
        if not child:
            LOG.info("%s: poses of %s are taken as those of %s (--pose-frame)", bag, topic.name, camera)
    return (None if topic.type in TF_TYPES else topic), transforms


def optical(transforms: Transforms, camera: str) -> str:
    """The frame itself, or the one below it whose name says that its axes are a camera's, where its own does not."""
    if "optical" in camera:
        return camera
    below = [child for parent, child in transforms.tracks if parent == camera and "optical" in child]
    if len(below) != 1:
        return camera
    LOG.warning(
        "images are of %s, which has an optical frame below it, %s; it is taken (--camera-frame)", camera, below[0]
    )
    return below[0]
