"""Clips in memory: the same as from files, what an iterator keeps, and every argument that can be bad."""

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Clip, Scene, load_clip, load_scene
from stllm_edge.runtime.bundle.geometry import VisionGeometry
from stllm_edge.runtime.host.pixels import pixel_values
from stllm_edge.runtime.host.rays import camera_rays
from stllm_edge.runtime.host.voxels import voxelise
from stllm_edge.runtime.inputs.selection import Selection, select_frames

FRAMES = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), np.uint8)
POSES = np.stack([np.eye(4)] * 10)
POSES[:, 0, 3] = range(10)


def clip_of(frames: Any = FRAMES, poses: Any = POSES, **times: Any) -> Clip:
    return Clip.of(frames, poses=poses, **times)


def select(clip: Clip, count: int) -> Selection:
    return select_frames(clip, {}, frames=count, default=count)


def read(clip: Clip, count: int) -> np.ndarray:
    return np.stack(list(clip.read(select(clip, count).indices)))


# the same as from files


@pytest.mark.parametrize("kind", [np.stack, list, tuple, iter], ids=["array", "list", "tuple", "iterator"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_arrays_give_what_files_give(inputs, kind: Callable[[Any], Any], count: int) -> None:
    """Bit for bit, from the voxels to the pixels; the files' numbers, times and poses are the robot's."""
    theirs, filmed = load_scene(inputs.scene), load_clip(inputs.video)
    stored = np.load(inputs.cloud)
    ours = Scene.of(stored[:, :3].astype(np.float64), stored[:, 3:].astype(np.uint8), np.loadtxt(inputs.intrinsics))
    frames, poses = list(filmed.read(range(3))), [np.loadtxt(file) for file in sorted(inputs.poses.iterdir())]
    taken = Clip.of(kind(frames), poses=poses, times=[0.3, 0.5, 0.9], seconds=1.2)
    vision = VisionGeometry(image_size=28, patch_size=14, width=8, layers=1, heads=1, mlp=8, grid=1)
    results = []
    for scene, clip in ((theirs, filmed), (ours, taken)):
        selection = select_frames(clip, scene.poses, frames=count, default=count)
        voxels = voxelise(scene.points, scene.colours, 0.06)
        rays = camera_rays(voxels, selection.poses, scene.intrinsics, frame_size=clip.size, vision=vision)
        pixels = np.stack([pixel_values(frame, 28) for frame in clip.read(selection.indices)])
        results.append(
            [
                voxels.coords,
                voxels.feats,
                rays.w2c_0,
                rays.voxels,
                rays.frames,
                pixels,
                selection.poses,
                selection.indices,
            ]
        )
        assert selection.timing() == (1.2, [(0.3, 0.5, 0.9)[place] for place in selection.indices])
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


def test_the_clip_s_poses_are_its_own_whatever_the_scene_has() -> None:
    selection = select_frames(clip_of(), {"0": np.eye(4)}, frames=4, default=4)
    assert selection.indices == (0, 3, 6, 9)
    assert selection.poses[:, 0, 3].tolist() == [0, 3, 6, 9]


def test_pose_conventions_hold() -> None:
    clip = clip_of(poses=np.linalg.inv(POSES), pose_convention="w2c")
    assert np.array_equal(select(clip, 10).poses, POSES)


# times


def test_times_come_from_the_rate() -> None:
    assert select(clip_of(fps=4), 2).timing() == (2.5, [0, 2.25])


def test_given_times_end_with_the_last_frame() -> None:
    seconds, times = select(clip_of(times=np.arange(10, dtype=np.float32) / 4 + 1), 2).timing()
    assert (seconds, times) == (3.5, [1, 3.25])
    assert Clip.of(FRAMES[:1], poses=POSES[:1], times=[2]).timing() == (2, (2,))


def test_a_given_length_wins() -> None:
    assert clip_of(fps=4, seconds=9).timing()[0] == clip_of(times=range(10), seconds=9).timing()[0] == 9


def test_without_times_the_arguments_are_named() -> None:
    with pytest.raises(BadInput, match=r"clip in memory: .* give times or fps to Clip\.of, or time_instruction=False"):
        select(clip_of(), 2).timing()


# iterators


@pytest.mark.parametrize("count", [1, 3, 10])
def test_an_iterator_gives_the_same_frames(count: int) -> None:
    assert np.array_equal(read(clip_of(iter(FRAMES)), count), read(clip_of(), count))


def test_an_iterator_s_chosen_frames_can_be_read_again() -> None:
    clip = clip_of(iter(FRAMES))
    assert np.array_equal(read(clip, 4), read(clip, 4))
    assert np.array_equal(read(clip, 2), FRAMES[[0, 9]])
    with pytest.raises(BadInput, match=r"^frames\[2\]: an iterator gives its frames once.*give the frames as a list"):
        read(clip, 5)


def test_frames_repeat_from_an_iterator() -> None:
    clip = clip_of(iter(FRAMES[:2]), POSES[:2])
    selection = select_frames(clip, {}, frames=None, default=5)
    assert np.array_equal(list(clip.read(selection.indices)), FRAMES[[0, 0, 0, 0, 1]])


def test_an_iterator_may_fill_the_same_array_again() -> None:
    def camera() -> Iterator[np.ndarray]:
        buffer = np.empty_like(FRAMES[0])
        for frame in FRAMES:
            buffer[:] = frame
            yield buffer

    assert np.array_equal(read(clip_of(camera()), 4), FRAMES[[0, 3, 6, 9]])


def test_an_iterator_takes_the_memory_of_the_chosen_frames() -> None:
    size = 300 * 400 * 3
    frames = (np.full((300, 400, 3), place, np.uint8) for place in range(100))
    tracemalloc.start()
    clip = Clip.of(frames, poses=[np.eye(4)] * 100)
    for _ in clip.read(select(clip, 4).indices):
        pass
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 4 * size < kept < 5 * size
    assert peak < 8 * size


def test_nothing_but_the_first_frame_is_taken_before_frames_are_read() -> None:
    frames = iter(FRAMES)
    select(clip_of(frames), 4)
    assert np.array_equal(next(frames), FRAMES[1])


@pytest.mark.parametrize(("given", "words"), [(7, "there are 7, but 10 poses"), (11, "more than the 10 poses")])
def test_an_iterator_of_another_length_is_refused(given: int, words: str) -> None:
    clip = clip_of(np.zeros((6, 8, 3), np.uint8) for _ in range(given))
    with pytest.raises(BadInput, match=f"^frames: .*{words}"):
        read(clip, 4)


# what is refused


def replaced(place: int, frame: object) -> list[object]:
    frames: list[object] = list(FRAMES)
    frames[place] = frame
    return frames


def moved(place: int, pose: object) -> list[object]:
    poses: list[object] = list(POSES)
    poses[place] = pose
    return poses


BAD = {
    "no frames": ({"frames": [], "poses": []}, "^frames: there are none"),
    "an iterator of none": ({"frames": iter([])}, "^frames: there are 0, but 10 poses"),
    "no poses": ({"frames": iter(FRAMES), "poses": []}, "^poses: there are none"),
    "not iterable": ({"frames": 5}, "^frames: expected a sequence or an iterator of arrays, found int"),
    "float frame": (
        {"frames": replaced(3, np.zeros((6, 8, 3)))},
        r"^frames\[3\]: expected .*found \[6, 8, 3\] float64",
    ),
    "grey frame": ({"frames": replaced(3, FRAMES[0, ..., 0])}, r"^frames\[3\]: .*found \[6, 8\] uint8"),
    "RGBA": ({"frames": replaced(0, np.zeros((6, 8, 4), np.uint8))}, r"^frames\[0\]: .*found \[6, 8, 4\] uint8"),
    "empty frame": ({"frames": np.zeros((10, 0, 8, 3), np.uint8)}, r"^frames\[0\]: .*found \[0, 8, 3\] uint8"),
    "no array": ({"frames": replaced(9, None)}, r"^frames\[9\]: .*found NoneType"),
    "another size": ({"frames": replaced(5, FRAMES[0, :5])}, r"^frames\[5\]: is 8x5, the clip \(8, 6\)"),
    "fewer poses": ({"poses": POSES[:9]}, "^poses: 9 for 10 frames"),
    "one matrix": ({"poses": np.eye(4)}, r"^poses\[0\]: expected 4x4 numbers, found \[4\]"),
    "one number": ({"poses": 1}, r"^poses: expected \[4, 4\] numbers a frame, found int"),
    "scaled pose": ({"poses": moved(4, np.eye(4) * 2)}, r"^poses\[4\]: not rigid"),
    "NaN pose": ({"poses": moved(4, POSES[4] * np.nan)}, r"^poses\[4\]: holds NaN"),
    "lost pose": ({"poses": moved(4, None)}, r"^poses\[4\]: not a matrix of numbers"),
    "convention": ({"pose_convention": "colmap"}, "colmap: unknown; known are c2w"),
    "fewer times": ({"times": range(9)}, "^times: 9 for 10 frames"),
    "no list of times": ({"times": 5}, "^times: expected seconds a frame, found int"),
    "NaN time": ({"times": [*range(9), float("nan")]}, r"^times\[9\]: found nan"),
    "text time": ({"times": [*range(9), "9"]}, r"^times\[9\]: found '9'"),
    "equal times": ({"times": [0, 1, 1, *range(3, 10)]}, r"^times\[2\]: is 1 s after 1 s, expected ascending"),
    "negative time": ({"times": range(-1, 9)}, r"^times\[0\]: is -1 s, expected 0 to 86400 s"),
    "a clock's stamps": ({"times": range(1_700_000_000, 1_700_000_010)}, r"^times\[0\]: .*subtract its stamp"),
    "times and a rate": ({"times": range(10), "fps": 1}, "^times and fps are both given"),
    "no rate": ({"fps": 0}, "^fps 0: expected a positive number"),
    "rate as text": ({"fps": "10"}, "^fps 10: expected a positive number"),
    "endless": ({"fps": 1, "seconds": float("inf")}, "^seconds inf: expected a positive number"),
}


@pytest.mark.parametrize(("changes", "words"), BAD.values(), ids=BAD)
def test_bad_arguments_are_named_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        Clip.of(**{"frames": FRAMES, "poses": POSES} | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "words"),
    [(FRAMES[0, :5], r"^frames\[9\]: is 8x5"), (None, r"^frames\[9\]: expected an array")],
    ids=["size", "kind"],
)
def test_bad_frames_of_an_iterator_are_named_when_they_are_read(frame: object, words: str) -> None:
    clip = clip_of(iter(replaced(9, frame)))
    with pytest.raises(BadInput, match=words):
        read(clip, 2)
