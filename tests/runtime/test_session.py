import logging
import os
from dataclasses import replace

import numpy as np
import pytest
from stllm_edge.runtime import (
    BadBundle,
    BadInput,
    Bundle,
    Options,
    Session,
    StllmError,
    load_clip,
    load_scene,
)
from stllm_edge.runtime.inputs.scene import Scene

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)
STAGES = {"voxels", "maps", "rays", "video", "vision", "points", "aligner", "prefill", "decode"}


def text(answer) -> str:
    return "".join(answer)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


# choices


def test_defaults_are_fp32_and_the_smallest_language_model(tiny_bundle, inputs, caplog) -> None:
    with caplog.at_level(logging.INFO, "stllm_edge"):
        session = Session(tiny_bundle)
        session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=1)
    sizes = {quant: (tiny_bundle / "llm" / f"{quant}.gguf").stat().st_size for quant in ("F32", "Q8_0", "Q4_K_M")}
    assert (session.setup.precision, session.setup.quant) == ("fp32", min(sizes, key=sizes.get))
    assert session.setup.threads == len(os.sched_getaffinity(0))
    assert "encoders fp32, language model Q4_K_M" in caplog.text


def test_fp16_is_the_default_where_there_is_no_fp32(edit_manifest) -> None:
    assert Session(edit_manifest(lambda manifest: manifest["encoders"].pop("fp32"))).setup.precision == "fp16"


def test_a_session_opens_a_bundle_a_path_or_a_string(tiny_bundle) -> None:
    for bundle in (Bundle(tiny_bundle), tiny_bundle, str(tiny_bundle)):
        assert Session(bundle).bundle.path == tiny_bundle


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(kv="f64"), "--kv f64: unknown; known are f32, f16, q8_0"),
        (Options(quant="Q2_K"), "--quant Q2_K: .* it holds F32, Q8_0, Q4_K_M"),
        (Options(precision="int8"), "--precision int8: .* it holds fp32, fp16"),
        (Options(threads=-1), "--threads -1"),
        (Options(threads=0), "--threads 0"),
        (Options(kv="q8_0", flash_attention=False), "--kv q8_0 needs flash attention"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(tiny_bundle, options: Options, words: str) -> None:
    with pytest.raises(StllmError, match=words):
        Session(tiny_bundle, options)


@pytest.mark.parametrize(
    ("kind", "words", "command"), [("encoders", "--precision fp32", "onnx"), ("llm", "--quant", "gguf")]
)
def test_a_bundle_without_a_part_says_which(edit_manifest, kind: str, words: str, command: str) -> None:
    with pytest.raises(BadBundle, match=f"{words}.* it holds none; add one with stllm-export {command} --ckpt DIR"):
        Session(edit_manifest(lambda manifest: manifest[kind].clear()))


@pytest.mark.parametrize("name", ["onnx/vision.cpu.onnx", "onnx/points.data", "llm/F32.gguf"])
def test_a_missing_file_is_named_on_opening(bundle, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BadBundle, match=f"{name} is missing"):
        Session(bundle, EXACT)


@pytest.mark.parametrize("name", ["onnx/aligner.cpu.onnx", "onnx/vision.data", "llm/F32.gguf"])
def test_a_changed_file_is_named_on_opening(bundle, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BadBundle, match=f"{name}: its SHA-256 differs"):
        Session(bundle, EXACT)


def test_files_that_the_session_does_not_read_may_be_absent(bundle) -> None:
    for name in ("onnx/vision.onnx", "onnx/vision.fp16.onnx", "llm/Q8_0.gguf"):
        (bundle / name).unlink()
    assert Session(bundle, EXACT).setup.quant == "F32"


# looking


def test_a_view_has_one_row_a_voxel_and_one_token_a_patch_and_row_end(seen) -> None:
    count = len(seen.voxels)
    assert count > 300
    assert {name: (array.shape, array.dtype) for name, array in seen.stages().items()} == {
        "voxel_coords": ((count, 3), np.int32),
        "voxel_feats": ((count, 3), np.float32),
        "w2c_0": ((4, 4), np.float32),
        "pcd_viewdirs": ((count, 3), np.float32),
        "img_rays_pooled": ((4, 4, 3), np.float32),
        "pcd_features": ((count, 128), np.float32),
        "pooled_features": ((4, 4, 256), np.float32),
        "video_tokens": ((24, 256), np.float32),
    }


def test_the_row_end_is_the_same_everywhere(seen) -> None:
    ends = seen.video_tokens[:, :, -1].reshape(-1, 256)
    assert (ends == ends[0]).all()
    assert np.abs(ends).max() > 0


def test_pooled_features_are_the_video_tokens_without_row_ends(seen) -> None:
    assert np.array_equal(seen.pooled_features.reshape(4, 2, 2, 256), seen.video_tokens[:, :, :2])


@pytest.mark.parametrize("frames", [1, 3])
def test_a_frame_s_tokens_do_not_depend_on_the_others(session, tmp_path, frames: int) -> None:
    """Frames are encoded a few at a time; the groups must not show."""
    from PIL import Image

    folder = tmp_path / "video"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(frames):
        Image.fromarray(generator.integers(0, 256, (12, 16, 3), np.uint8)).save(folder / f"{number}.png")
    clip = load_clip(folder)
    poses = {str(number): np.eye(4) for number in range(frames)}
    scene = box_scene(poses)
    together = session.look(scene, clip, frames=frames).video_tokens
    assert together.shape == (frames, 2, 3, 256)
    for number in range(frames):
        alone = session.look(replace(scene, poses={str(number): np.eye(4)}), clip, frames=1).video_tokens
        assert difference(alone[0], together[number]) < 1e-5


def box_scene(poses: dict[str, np.ndarray], points: int = 50) -> Scene:
    generator = np.random.default_rng(1)
    return Scene(
        generator.uniform((-1, -1, 2), (1, 1, 4), (points, 3)).astype(np.float32),
        generator.integers(0, 256, (points, 3)).astype(np.float32),
        poses,
        np.array([[12.0, 0, 8], [0, 12, 6], [0, 0, 1]]),
    )


def test_point_features_follow_the_voxels_whatever_the_order_of_the_points(session, inputs) -> None:
    scene, clip = load_scene(inputs.scene), load_clip(inputs.video)
    plain = session.look(scene, clip, frames=1)
    order = np.random.default_rng(0).permutation(len(scene.points))
    shuffled = session.look(replace(scene, points=scene.points[order], colours=scene.colours[order]), clip, frames=1)
    assert len(plain.voxels) == len(scene.points)
    assert np.array_equal(plain.voxels.coords, shuffled.voxels.coords)
    assert difference(shuffled.pcd_features, plain.pcd_features) < 1e-5


def test_one_voxel_one_frame(session, inputs) -> None:
    scene = load_scene(inputs.scene)
    scene = replace(scene, points=scene.points[:1], colours=scene.colours[:1])
    answer = session.ask(scene, load_clip(inputs.video), "Where?", frames=1, max_new_tokens=2)
    text(answer)
    assert len(answer.view.voxels) == len(answer.view.pcd_features) == 1
    assert np.isfinite(answer.logits_last_prompt).all()


def test_fewer_posed_frames_than_the_bundle_s_repeat(session, inputs, caplog) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        view = session.look(load_scene(inputs.scene), load_clip(inputs.video))
    assert view.video_tokens.shape[0] == 32
    assert "32 frames are sampled from 3 with a pose" in caplog.text
    assert np.array_equal(np.unique(view.selection.indices), [0, 1, 2])


@pytest.mark.parametrize("wrong", ["w2c", "c2w-opengl"])
def test_unseen_points_are_warned_of_once(session, inputs, caplog, wrong: str) -> None:
    for file in inputs.poses.glob("*.txt"):
        pose = np.loadtxt(file)
        pose[:3, 3] = [0, 0, -8]
        np.savetxt(file, pose if wrong != "w2c" else np.linalg.inv(pose))
    scene = load_scene(inputs.scene, pose_convention="c2w-opengl" if wrong != "w2c" else "c2w")
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        session.look(scene, load_clip(inputs.video), frames=2)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("0.0 % of the points project into a frame")
    assert "world-to-camera" in message
    assert "OpenGL" in message
    assert "40x30" in message


def test_a_scene_that_is_seen_is_not_warned_of(session, inputs, caplog) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=2)
    assert not caplog.records


def test_scene_and_clip_of_different_places(session, inputs) -> None:
    scene = box_scene({"elsewhere_1": np.eye(4)})
    with pytest.raises(BadInput, match="has a pose"):
        session.look(scene, load_clip(inputs.video))


# precisions


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        (replace(EXACT, threads=2), 1e-4),
        (replace(EXACT, kv="f16", flash_attention=None), 1e-2),
        (replace(EXACT, precision="fp16"), 0.05),
        (replace(EXACT, quant="Q8_0"), 0.15),
    ],
    ids=["two threads", "f16 keys", "fp16 encoders", "Q8_0"],
)
def test_other_precisions_are_near(tiny_bundle, session, inputs, options: Options, limit: float) -> None:
    scene, clip = load_scene(inputs.scene), load_clip(inputs.video)
    exact, other = (opened.ask(scene, clip, "Where?", frames=3) for opened in (session, Session(tiny_bundle, options)))
    next(iter(exact))
    next(iter(other))
    assert difference(other.logits_last_prompt, exact.logits_last_prompt) < limit


# real captures


def test_a_real_capture_of_one_frame(session, capture, caplog) -> None:
    scene, clip = load_scene(capture.scene), load_clip(capture.video, fps=30)
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        answer = session.ask(scene, clip, "What lies in front of me?", frames=1, max_new_tokens=2)
        list(answer)
    assert not caplog.records
    assert len(answer.view.voxels) > 100
    assert np.isfinite(answer.view.pcd_features).all()
    assert np.isfinite(answer.logits_last_prompt).all()


def test_a_real_video_with_poses_by_number(session, bikes) -> None:
    poses = {f"frame_{number:010d}": np.eye(4) for number in range(1, 251, 50)}
    view = session.look(box_scene(poses), load_clip(bikes, first_frame=1), frames=5)
    assert view.selection.indices == (0, 50, 100, 150, 200)
    assert len({tokens.tobytes() for tokens in view.video_tokens}) == 5
