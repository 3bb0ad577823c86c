"""Bags of robots as a scene and a clip."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from ..cameras import load_intrinsics, require_convention, to_pose
from ..cameras.lens import LEAST_PIXELS, Lens
from ..clip import Clip, with_length
from ..decoding.images import white_of
from ..matching import Straightened
from ..points import PointCloud, load_points, to_points
from ..scene import Scene
from .bag import NANO, Bag, open_bag, stamp_of
from .choices import CLOUD_CHOICES, BagChoices
from .clouds import Fused, read_cloud
from .frames import BagFrames, Shot
from .lens import read_lens
from .plan import Plan, make_plan
from .poses import plain_frame
from .topics import first_message
from .transforms import GAP_SECONDS, TOLERANCE_SECONDS

__all__ = ["load_recording"]

LOG = logging.getLogger(__name__)
# clouds are taken evenly
MOST_CLOUDS = 100
# deep images that are looked at for their brightest value
PEAK_FRAMES = 8


def load_recording(
    path: Path | str,
    choices: BagChoices | None = None,
    *,
    scene: Path | str | None = None,
    intrinsics: Path | str | np.ndarray | None = None,
    pose_convention: str = "c2w",
    crop: float | None = None,
    glb: str = "all",
) -> tuple[Scene, Clip]:
    """Read a recording of a robot: images, where the camera was, and a cloud.

    Args:
        path: an .mcap, .db3 or .bag file, or a bag's folder.
        choices: topics, frames and times, where there are several.
        scene: a point cloud file in place of the recording's, in the coordinates of the map's frame.
        intrinsics: 3x3 text file, or a matrix, in place of the `CameraInfo`, for images without bending.
        pose_convention: how the camera's poses are meant, `c2w` for optical axes, as ROS means the frame of images.
        crop: leave out points further than this from the cloud's middle along an axis, metres.
        glb: which geometries of a GLB.

    Returns:
        The scene, whose poses are the clip's own, and the clip.

    Raises:
        BadInput: something is missing, damaged, or there are several and none is named.
        MissingDependency: the extra `ros` is not installed.
    """
    path, choices = Path(path), choices or BagChoices()
    require_convention(pose_convention)
    with open_bag(path) as bag:
        plan = make_plan(bag, choices, scene=scene is not None, intrinsics=intrinsics is not None)
        shots = read_shots(bag, plan, choices)
        lens = lens_of(bag, plan)
        if scene is not None:
            cloud = load_points(Path(scene), crop=crop, glb=glb)
        else:
            cloud = read_clouds(bag, plan, choices.clouds, crop)
    poses = camera_poses(plan, shots, pose_convention)
    clip, matrix = as_clip(BagFrames(path, plan.images.name, shots, poses), pose_convention, lens)
    if intrinsics is not None:
        matrix = intrinsics if isinstance(intrinsics, np.ndarray) else load_intrinsics(Path(intrinsics))
    return Scene(cloud.points, cloud.colours, {}, matrix, cloud.offset, pose_convention), clip


def lens_of(bag: Bag, plan: Plan) -> Lens | None:
    """The camera's lens, where intrinsics are not given."""
    if plan.info is None:
        return None
    rectified = "rect" in plan.images.name
    return read_lens(first_message(bag, plan.info), f"{bag}, {plan.info.name}", rectified=rectified)


def read_shots(bag: Bag, plan: Plan, choices: BagChoices) -> tuple[Shot, ...]:
    """The images of the clip, in the order of their stamps.

    Raises:
        BadInput: there are none in the time that was asked for.
    """
    start, stop = (None if at is None else bag.start + round(at * NANO) for at in (choices.begin, choices.end))
    shots = [
        Shot(stamp_of(message.fields), message.received)
        for message in bag.messages([plan.images.name], start, None if stop is None else stop + 1)
    ]
    if not shots:
        span = (bag.stop - bag.start) / NANO
        raise BadInput(
            f"{bag}: {plan.images.name} holds no image in the time asked for (--from, --to); it takes {span:.1f} s"
        )
    if unset := [shot for shot in shots if shot.stamp == 0]:
        if len(unset) < len(shots):
            raise BadInput(f"{bag}: {len(unset)} of {len(shots)} images of {plan.images.name} have no stamp")
        LOG.warning(
            "%s: images of %s have no stamps; the times at which they were received count", bag, plan.images.name
        )
        shots = [Shot(shot.received, shot.received) for shot in shots]
    by_stamp = {shot.stamp: shot for shot in sorted(shots, key=lambda shot: -shot.received)}
    if len(by_stamp) < len(shots):
        LOG.warning(
            "%s: %d images of %s have the stamp of another, and are left out",
            bag,
            len(shots) - len(by_stamp),
            plan.images.name,
        )
    return tuple(by_stamp[stamp] for stamp in sorted(by_stamp))


def camera_poses(plan: Plan, shots: tuple[Shot, ...], convention: str) -> Mapping[int, np.ndarray]:
    """Poses [4, 4] of the images that have one, by place; how many have none is told.

    Raises:
        BadInput: none has.
    """
    stamps = np.array([shot.stamp for shot in shots], np.int64)
    poses, known = plan.transforms.at(plan.camera, plan.map_frame, stamps)
    source = f"{plan.transforms.source}, {plan.images.name}"
    if not known.all():
        span = plan.transforms.span(plan.camera, plan.map_frame) or (0, 0)
        told = (
            f"{source}: {int((~known).sum())} of {len(shots)} images have no pose: transforms of {plan.camera} in "
            f"{plan.map_frame} are known from {span[0] / NANO:.3f} to {span[1] / NANO:.3f} s (± {TOLERANCE_SECONDS} s, "
            f"no more than {GAP_SECONDS} s apart), images from {stamps[0] / NANO:.3f} to {stamps[-1] / NANO:.3f} s"
        )
        if not known.any():
            raise BadInput(f"{told}; are their clocks the same?")
        LOG.warning("%s", told)
    return {int(place): to_pose(poses[place], f"{source}: pose {place}", convention) for place in np.flatnonzero(known)}


def as_clip(frames: BagFrames, convention: str, lens: Lens | None) -> tuple[Clip, Any]:
    """The clip of a bag's images without the lens's bending, and its intrinsics; errors as in `load_recording`."""
    places = sorted({int(place) for place in np.linspace(0, len(frames) - 1, PEAK_FRAMES)})
    ((_, first),) = frames.pictures(places[:1])
    size = (first.values.shape[1], first.values.shape[0])
    if first.deep:
        peak = max(float(picture.values.max()) for _, picture in frames.pictures(places))
        frames = replace(frames, white=white_of(peak, False))
        LOG.info("%s: grey images of more than 8 bits are scaled, with white at %g", frames, frames.white)
    times = tuple((shot.stamp - frames.shots[0].stamp) / NANO for shot in frames.shots)
    clip = Clip(frames, size, *with_length(times, None), pose_convention=convention)
    if lens is None:
        return clip, None
    lens = lens.at(size, str(frames))
    if (bends := lens.bends(str(frames))) >= LEAST_PIXELS:
        LOG.info("%s: its lens bends by up to %.1f pixels; images are straightened", frames, bends)
        clip = replace(clip, frames=Straightened(frames, lens))
    return clip, lens.matrix


def read_clouds(bag: Bag, plan: Plan, which: str, crop: float | None) -> PointCloud:
    """One cloud, or all in one, in the map's frame.

    Raises:
        BadInput: there are none that can be used, or the one asked for is not there.
    """
    assert plan.clouds is not None
    source, count = f"{bag}, {plan.clouds.name}", plan.clouds.count
    places = chosen_clouds(which, count)
    found = list_clouds(bag, plan, places)
    if len(places) == 1:
        return single(found, source, crop)
    fused, last, used = Fused(source), None, 0
    for points, colours, pose in found:
        fused.add(points, colours, pose)
        last, used = (points, colours, pose), used + 1
    if last is None:
        raise no_transform(plan, source, len(places))
    if used < len(places):
        LOG.warning(
            "%s: %d of %d clouds have no transform to %s, and are left out",
            source,
            len(places) - used,
            len(places),
            plan.map_frame,
        )
    points, colours = fused.whole()
    if which == "auto" and not plan.transforms.moves(plan.cloud_frame, plan.map_frame) and fused.last_is_whole():
        LOG.info("%s: the last of %d clouds is taken, since it has all that the others have (--clouds)", source, count)
        return single(iter([last]), source, crop)
    LOG.info("%s: %d of %d clouds are fused, a point in 1 cm", source, used, count)
    return to_points(points, colours, crop=crop, source=source)


def chosen_clouds(which: str, count: int) -> list[int]:
    """Places of the clouds that are read; raises BadInput for words that `--clouds` does not know."""
    if which in ("first", "last") or (count == 1 and which in CLOUD_CHOICES):
        return [0 if which == "first" else count - 1]
    if which in CLOUD_CHOICES:
        return [int(place) for place in np.linspace(0, count - 1, min(MOST_CLOUDS, count))]
    if which.isdecimal() and int(which) < count:
        return [int(which)]
    raise BadInput(f"--clouds {which}: expected {', '.join(CLOUD_CHOICES)}, or a place from 0 to {count - 1}")


def list_clouds(bag: Bag, plan: Plan, places: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Points, colours and pose of the clouds at these places that have one."""
    assert plan.clouds is not None
    wanted = set(places)
    for place, message in enumerate(bag.messages([plan.clouds.name])):
        if place not in wanted:
            continue
        frame = plain_frame(message.fields.header.frame_id) or plan.cloud_frame
        stamp = stamp_of(message.fields) or message.received
        poses, known = plan.transforms.at(frame, plan.map_frame, np.array([stamp], np.int64))
        if known[0]:
            yield *read_cloud(message.fields, f"{bag}, {plan.clouds.name}"), poses[0]


def single(found: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], source: str, crop: float | None) -> PointCloud:
    """The only cloud; one in the map's frame is taken as it is."""
    cloud = next(found, None)
    if cloud is None:
        raise BadInput(
            f"{source}: the cloud asked for has no transform to the map; give another (--clouds, --map-frame)"
        )
    points, colours, pose = cloud
    if not np.array_equal(pose, np.eye(4)):
        points = points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    return to_points(points, colours, crop=crop, source=source)


def no_transform(plan: Plan, source: str, count: int) -> BadInput:
    return BadInput(
        f"{source}: none of {count} clouds has a transform from {plan.cloud_frame} to {plan.map_frame} at its time"
    )
