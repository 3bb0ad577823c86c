"""Features are computed once for what they are made of, and again when a byte of it changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import Clip, Options, Scene, Session, View
from stllm_edge.runtime.fit import evidence

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)
KNOWN = {"voxels": (1, 0), "rays": (2, 0), "vision": (3, 0), "points": (1, 0)}


def reused(view: View) -> dict[str, tuple[int, int]]:
    return {stage: (counts["hits"], counts["misses"]) for stage, counts in view.meter.reused.items()}


def arrays(view: View) -> list[bytes]:
    assert view.encoded_rays is not None
    held = [*view.stages().values(), *view.encoded_rays]
    return [array.tobytes() for array in held]


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session(tiny_bundle, EXACT)


@pytest.fixture
def look(session: Session) -> Callable[..., View]:
    session.store.clear()
    return lambda scene, clip, **how: session.look(scene, clip, **{"frames": 3, **how})


def test_what_was_looked_at_is_known_to_the_bit_and_costs_no_stage(look, place) -> None:
    fresh, known = look(*place), look(*place)
    assert reused(fresh) == {"voxels": (0, 1), "maps": (0, 1), "rays": (0, 2), "vision": (0, 3), "points": (0, 1)}
    assert reused(known) == KNOWN
    assert set(known.meter.milliseconds) == {"scene", "video"}
    assert arrays(fresh) == arrays(known)


def test_scene_and_clip_are_held_against_each_other_once(look, place, monkeypatch) -> None:
    calls: list[int] = []
    agreement = evidence.agreement
    monkeypatch.setattr(evidence, "agreement", lambda *parts: calls.append(1) or agreement(*parts))
    first = look(*place)
    count = len(calls)
    assert count
    assert look(*place).fit.to_json() == first.fit.to_json()
    assert len(calls) == count
    scene, frames, poses = in_memory(*place)
    frames[0][:] ^= 255
    look(scene, Clip.of(frames, poses=poses, fps=10))
    assert len(calls) > count


def test_equal_content_is_known_whatever_its_file_is_called(look, place, inputs) -> None:
    look(*place)
    for file in [*inputs.video.glob("*.png"), *inputs.poses.glob("*.txt")]:
        file.rename(file.with_name(file.name.replace("frame_", "image_")))
    from stllm_edge.runtime import load_clip, load_scene

    assert reused(look(load_scene(inputs.scene), load_clip(inputs.video))) == KNOWN


def in_memory(scene: Scene, clip: Clip) -> tuple[Scene, list[np.ndarray], list[np.ndarray]]:
    frames = [frame.copy() for frame in clip.read(range(len(clip)))]
    return scene, frames, [pose.copy() for pose in clip.frames.posed(scene.poses).values()]


CHANGES: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "a frame": (lambda scene, frames, poses: frames[1].__setitem__((0, 0, 0), frames[1][0, 0, 0] ^ 1), {"vision"}),
    "a pose": (lambda scene, frames, poses: poses[1].__setitem__((0, 3), np.nextafter(poses[1][0, 3], 9)), {"rays"}),
    "intrinsics": (
        lambda scene, frames, poses: scene.intrinsics.__setitem__((0, 0), np.nextafter(scene.intrinsics[0, 0], 99)),
        {"rays"},
    ),
    "a point": (
        lambda scene, frames, poses: scene.points.__setitem__((5, 0), np.nextafter(scene.points[5, 0], np.float32(9))),
        {"voxels", "maps", "rays", "points"},
    ),
    "a colour": (
        lambda scene, frames, poses: scene.colours.__setitem__(
            (5, 0), np.nextafter(scene.colours[5, 0], np.float32(400))
        ),
        {"voxels", "maps", "rays", "points"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_changed_byte_is_a_miss(look, place, name: str) -> None:
    scene, frames, poses = in_memory(*place)
    scene = replace(scene, points=scene.points.copy(), colours=scene.colours.copy(), intrinsics=scene.intrinsics.copy())
    look(scene, Clip.of(frames, poses=poses, fps=10))
    assert reused(look(scene, Clip.of(frames, poses=poses, fps=10))) == KNOWN
    change, stages = CHANGES[name]
    change(scene, frames, poses)
    found = reused(look(scene, Clip.of(frames, poses=poses, fps=10)))
    assert {stage for stage, (_, misses) in found.items() if misses} == stages
    if name == "a frame":
        assert found["vision"] == (2, 1)


def test_a_sliding_clip_encodes_new_frames_alone(look, place, session, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, frames, poses = in_memory(*place)
    window = [np.roll(frames[0], number, axis=1) for number in range(9)]
    pose = poses[0]
    encoded: list[int] = []
    encode = session.stages.encode_frames

    def watched(pixels: Any, meter: Any) -> Any:
        for tokens in encode(pixels, meter):
            encoded.append(1)
            yield tokens

    monkeypatch.setattr(session.stages, "encode_frames", watched)
    for start in range(2):
        clip = Clip.of(window[start : start + 8], poses=[pose] * 8, fps=10)
        view = look(scene, clip, frames=8)
        assert (len(encoded), view.meter.reused["vision"]["misses"]) == ((8, 8), (9, 1))[start]
    fresh = Session(session.bundle, EXACT).look(scene, clip, frames=8)
    assert np.array_equal(view.video_tokens, fresh.video_tokens)


def test_frames_that_repeat_are_encoded_once(look, place) -> None:
    view = look(*place, frames=None)
    assert len(view.selection) == 32
    assert reused(view)["vision"] == (29, 3)
    assert len(np.unique(view.video_tokens, axis=0)) == 3


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({"precision": "fp16"}, {"voxels", "rays"}),
        ({"threads": 2}, {"voxels", "rays"}),
        ({"quant": "Q8_0"}, set(KNOWN)),
    ],
)
def test_an_option_that_decides_bits_is_a_miss(tiny_bundle, place, folder, changed, known) -> None:
    options = replace(EXACT, cache=folder)
    Session(tiny_bundle, options).look(*place, frames=3)
    found = reused(Session(tiny_bundle, replace(options, **changed)).look(*place, frames=3))
    assert {stage for stage, (_, misses) in found.items() if not misses} - {"maps"} == known


def test_other_weights_are_a_miss(bundle, place, folder, edit_manifest) -> None:
    options = replace(EXACT, cache=folder)
    Session(bundle, options).look(*place, frames=3)
    import hashlib

    content = bytearray((bundle / "onnx/vision.data").read_bytes())
    content[100] ^= 1
    (bundle / "onnx/vision.data").write_bytes(content)
    sha = hashlib.sha256(content).hexdigest()
    edit_manifest(lambda manifest: manifest["files"]["onnx/vision.data"].update(sha256=sha))
    found = reused(Session(bundle, options).look(*place, frames=3))
    assert {stage for stage, (_, misses) in found.items() if misses} == {"vision"}


def test_a_folder_serves_other_sessions_to_the_bit(tiny_bundle, place, folder) -> None:
    options = replace(EXACT, cache=folder)
    fresh = Session(tiny_bundle, options).look(*place, frames=3)
    assert list(folder.rglob("*.features"))
    known = Session(tiny_bundle, options).look(*place, frames=3)
    assert reused(known) == KNOWN
    assert arrays(fresh) == arrays(known)


def test_maps_are_known_where_points_are_of_other_weights(tiny_bundle, place, folder) -> None:
    Session(tiny_bundle, replace(EXACT, cache=folder)).look(*place, frames=1)
    found = Session(tiny_bundle, replace(EXACT, cache=folder, precision="fp16")).look(*place, frames=1)
    assert reused(found)["maps"] == (1, 0)


def test_what_is_handed_out_cannot_be_changed(look, place) -> None:
    view = look(*place)
    with pytest.raises(ValueError, match="read-only"):
        view.points[0] = 0


def test_a_frame_that_is_known_is_not_decoded_and_its_file_read_for_what_it_holds(inputs, session, monkeypatch) -> None:
    from stllm_edge.runtime import load_clip, load_scene
    from stllm_edge.runtime.inputs.decoding import images

    session.store.clear()
    scene, clip = load_scene(inputs.scene), load_clip(inputs.video)
    session.look(scene, clip, frames=3)
    decoded: list[int] = []
    decode = images.decode_image
    monkeypatch.setattr(images, "decode_image", lambda data: decoded.append(1) or decode(data))
    assert reused(session.look(scene, clip, frames=3)) == KNOWN
    assert not decoded
    file = sorted(inputs.video.glob("*.png"))[1]
    file.write_bytes(file.read_bytes() + b"\0")
    assert reused(session.look(scene, clip, frames=3))["vision"] == (2, 1)
    assert decoded
