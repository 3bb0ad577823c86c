"""stllm-run: what it prints, and each error that a user can cause."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from safetensors.numpy import load_file

QUICK = ("--frames", 2, "--max-new-tokens", 3, "--threads", 1, "--resident")
MEASURED = {"scene", "prompt", "voxels", "maps", "rays", "video", "vision", "points", "aligner", "prefill", "decode"}
MEASURED |= {f"load_{name}" for name in ("vision", "points", "aligner", "llm")}


@pytest.fixture
def run(stllm: Any, tiny_bundle: Path, inputs: Any) -> Callable[..., Result]:
    """Ask about the inputs; options given later win."""

    def ask(*options: object, bundle: Path = tiny_bundle, question: str = "Where is the cup?") -> Result:
        sources = ("--bundle", bundle, "--scene", inputs.scene, "--video", inputs.video, "--question", question)
        return stllm("run", *sources, *QUICK, *options)

    return ask


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# what it prints


def test_the_answer_goes_to_stdout_and_notices_to_stderr(run) -> None:
    result = run()
    assert result.exit_code == 0
    assert "encoders fp32" in result.stderr
    assert "encoders" not in result.stdout
    assert result.stdout.endswith("\n")


def test_quiet_prints_the_answer_only(run) -> None:
    result = run("--quiet", "--frames", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.strip()


def test_json_holds_answer_counts_and_milliseconds(run) -> None:
    plain, result = run("--quiet"), run("--json")
    report = json.loads(result.stdout)
    assert set(report["milliseconds"]) == MEASURED | {"resize", "sampling", "detokenise"}
    assert all(spent > 0 for spent in report["milliseconds"].values())
    assert set(report["peak_mb"]) == MEASURED
    assert all(1 < peak < 100_000 for peak in report["peak_mb"].values())
    assert report["answer"] == plain.stdout.removesuffix("\n")
    assert (report["frames"], report["voxels"], report["new_tokens"]) == (2, 60, 3)
    assert (report["precision"], report["quant"]) == ("fp32", "Q4_K_M")


def test_encoders_run_in_processes_of_their_own_unless_resident(stllm, tiny_bundle, inputs, run) -> None:
    sources = ("--bundle", tiny_bundle, "--scene", inputs.scene, "--video", inputs.video, "-q", "Where is the cup?")
    short_lived = stllm("run", *sources, *QUICK[:-1], "--json")
    assert short_lived.exit_code == 0, short_lived.stderr
    ours, resident = json.loads(short_lived.stdout), json.loads(run("--json").stdout)
    assert (ours["answer"], set(ours["peak_mb"])) == (resident["answer"], MEASURED)


def test_short_names(stllm, tiny_bundle, inputs) -> None:
    short = ("-b", tiny_bundle, "-s", inputs.scene, "-V", inputs.video, "-q", "Where?", "-f", 2, "-n", 3, "-t", 0)
    result = stllm("run", *short, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["new_tokens"] <= 3


def test_options_reach_the_model(run) -> None:
    choice = ("--precision", "fp16", "--quant", "Q8_0", "--kv", "q8_0", "--flash-attention", "--threads", 1)
    result = run("--json", "--bare-prompt", "--no-time-instruction", *choice, "--temperature", 1.5, "--seed", 3)
    report = json.loads(result.stdout)
    assert (report["precision"], report["quant"]) == ("fp16", "Q8_0")
    assert report["prompt_tokens"] < json.loads(run("--json").stdout)["prompt_tokens"]


def test_a_seed_repeats_an_answer(run) -> None:
    def draw(seed: int) -> str:
        return run("--quiet", "--temperature", 3, "--seed", seed, "--max-new-tokens", 8).stdout

    assert draw(5) == draw(5) != draw(6)


def test_a_cloud_file_takes_poses_and_intrinsics(run, inputs) -> None:
    sources = ("--scene", inputs.cloud, "--poses", inputs.poses, "--intrinsics", inputs.intrinsics)
    assert run("--quiet", *sources).stdout == run("--quiet").stdout


def test_cameras_take_the_place_of_poses_and_intrinsics(run, inputs) -> None:
    before = run("--quiet").stdout
    cameras = (inputs.scene.parent / "transforms.json", inputs.scene.parent / "trajectory.txt")
    opengl, rows = np.diag([1.0, -1, -1, 1]), []
    frames: list[dict[str, Any]] = []
    for file in sorted(inputs.poses.iterdir()):
        pose = np.loadtxt(file)
        frames.append({"file_path": f"images/{file.stem}.png", "transform_matrix": (pose @ opengl).tolist()})
        rows.append(f"{int(file.stem[-1]) / 10} {pose[0, 3]} 0 0 0 0 0 1")
        file.unlink()
    lens = {"w": 80, "h": 60, "fl_x": 60.0, "fl_y": 60.0, "cx": 40.0, "cy": 30.0}
    cameras[0].write_text(json.dumps({**lens, "frames": frames}))
    cameras[1].write_text("\n".join(rows))
    assert run("--quiet", "--cameras", cameras[1]).stdout == before
    double = np.loadtxt(inputs.intrinsics) * [[2], [2], [1]]
    np.savetxt(inputs.intrinsics, double)
    assert run("--quiet", "--cameras", cameras[1], "--intrinsics-of", "80x60").stdout == before
    inputs.intrinsics.unlink()
    result = run("--cameras", cameras[0])
    assert result.stdout == before
    assert "scaled from 80x60 to the frames' 40x30" in result.stderr
    assert_refused(run("--quiet", "--cameras", cameras[0], "--poses", inputs.poses), "--cameras and --poses are both")
    assert_refused(run("--quiet", "--cameras", cameras[0], "--intrinsics-of", "80x60"), "says what its intrinsics")
    assert_refused(run("--quiet", "--cameras", cameras[1]), "holds no intrinsics of the frames; give --intrinsics FILE")


def test_intrinsics_of_images_of_another_size(run, inputs) -> None:
    before = run("--quiet").stdout
    np.savetxt(inputs.intrinsics, np.loadtxt(inputs.intrinsics) * [[2], [2], [1]])
    assert run("--quiet", "--intrinsics-of", "80x60").stdout == before
    np.savetxt(inputs.intrinsics, np.loadtxt(inputs.intrinsics) * [[1], [4 / 3], [1]])
    squeezed = run("--quiet", "--intrinsics-of", "80x80")
    assert squeezed.stdout == before
    assert "80x80: another shape than the frames' 40x30, which are taken as squeezed, not cropped" in squeezed.stderr


def test_pose_conventions_convert(run, inputs) -> None:
    before = run("--quiet").stdout
    for file in inputs.poses.glob("*.txt"):
        np.savetxt(file, np.linalg.inv(np.loadtxt(file)))
    assert run("--quiet", "--pose-convention", "w2c").stdout == before


def test_a_video_file_with_poses_by_number(run, inputs, bikes) -> None:
    for stem in range(1, 251, 83):
        np.savetxt(inputs.poses / f"frame_{stem:010d}.txt", np.eye(4))
    for file in inputs.poses.glob("frame_000000000[359].txt"):
        file.unlink()
    result = run("--video", bikes, "--first-frame", 1, "--frames", 4, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["frames"] == 4


def test_dump_holds_every_stage(run, inputs, tmp_path) -> None:
    file = tmp_path / "stages.safetensors"
    assert run("--dump", file).exit_code == 0
    stages = load_file(file)
    assert {name: array.shape for name, array in stages.items() if "token_ids" not in name} == {
        "voxel_coords": (60, 3),
        "voxel_feats": (60, 3),
        "w2c_0": (4, 4),
        "pcd_viewdirs": (60, 3),
        "img_rays_pooled": (2, 4, 3),
        "pcd_features": (60, 128),
        "pooled_features": (2, 4, 256),
        "video_tokens": (12, 256),
        "prefix_tokens": (8, 256),
        "logits_last_prompt": (1024,),
    }
    prompt, aligner = stages["prompt_token_ids"].tolist(), stages["aligner_token_ids"].tolist()
    assert [token for token in prompt if token < 0] == [-300, -200]
    assert min(aligner) >= 0
    assert stages["token_ids"][0] == stages["logits_last_prompt"].argmax()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene", "stages.safetensors", "video"]


def test_the_installed_command_prints_one_line_and_no_traceback(tmp_path) -> None:
    entry = "from stllm_edge.cli import run; run(prog_name='stllm-run')"
    sources = ["-b", tmp_path / "none", "-s", tmp_path, "-V", tmp_path, "-q", "Where?"]
    done = subprocess.run([sys.executable, "-c", entry, *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"stllm-run: {tmp_path}/none: no manifest.json; make a bundle with stllm-export all")
    assert done.stderr.count("\n") == 1


# errors


def assert_refused(result: Result, words: str) -> None:
    """One line on stderr that holds `words`, nothing on stdout, status 2."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


OPTIONS = {
    "unknown quant": (["--quant", "Q2_K"], "it holds F32, Q8_0, Q4_K_M"),
    "unknown precision": (["--precision", "int8"], "it holds fp32, fp16"),
    "unknown kv": (["--kv", "q4_0"], "known are f32, f16, q8_0"),
    "kv that needs flash attention": (["--kv", "q8_0", "--no-flash-attention"], "--kv q8_0 needs flash attention"),
    "unknown pose convention": (["--pose-convention", "colmap"], "known are c2w, w2c, c2w-opengl, w2c-opengl"),
    "more frames than posed": (["--frames", 4], "--frames 4: 3 of 3 frames"),
    "no frames": (["--frames", 0], "--frames 0: expected at least 1"),
    "negative frames": (["--frames", -1], "--frames -1"),
    "no new tokens": (["--max-new-tokens", 0], "--max-new-tokens 0"),
    "too many new tokens": (["--max-new-tokens", 10**6], "the model was made for 32768"),
    "more than 32 bits of new tokens": (["--max-new-tokens", 2**40], "--max-new-tokens"),
    "negative temperature": (["--temperature", -1], "--temperature -1"),
    "NaN temperature": (["--temperature", "nan"], "--temperature nan"),
    "negative seed": (["--seed", -1, "--temperature", 1], "--seed -1"),
    "negative threads": (["--threads", -1], "--threads -1"),
    "threads without end": (["--threads", 100_000], "--threads 100000: expected 1 to 512"),
    "fewer layers than all": (["--gpu-layers", -5], "--gpu-layers -5: expected a number of layers, or -1 for all"),
    "fps of zero": (["--fps", 0], "--fps 0.0: expected a positive number"),
    "infinite length": (["--video-seconds", "inf"], "--video-seconds inf: expected a positive number"),
    "first frame too late": (["--first-frame", 4], "--first-frame 4"),
    "no such scene": (["--scene", "/nowhere"], "scene /nowhere: no such file or folder"),
    "no such video": (["--video", "/nowhere"], "video /nowhere: no such file or folder"),
    "no such bundle": (["--bundle", "/nowhere"], "/nowhere: no manifest.json; make a bundle with stllm-export all"),
    "no such poses": (["--poses", "/nowhere"], "poses /nowhere: no poses"),
    "no such intrinsics": (["--intrinsics", "/nowhere"], "intrinsics /nowhere: no such file"),
    "dump into no folder": (["--dump", "/nowhere/dump.safetensors"], "the folder /nowhere does not exist"),
    "empty question": (["--question", ""], "the question is empty"),
    "placeholder": (["--question", "What is in <image>?"], "the question holds <image>"),
    "question that is not UTF-8": (["--question", "caf\udce9?"], "the question"),
}


@pytest.mark.parametrize(("options", "words"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_cannot_be(run, options: list[object], words: str) -> None:
    assert_refused(run("--quiet", *options), words)


def no_colours(inputs: Any) -> None:
    np.save(inputs.cloud, np.load(inputs.cloud)[:, :3])


def nan_points(inputs: Any) -> None:
    points = np.load(inputs.cloud)
    points[4:, 1] = np.nan
    np.save(inputs.cloud, points)


def kilometres(inputs: Any) -> None:
    points = np.load(inputs.cloud)
    points[0, 0] = 1e6
    np.save(inputs.cloud, points)


def pose(matrix: np.ndarray) -> Callable[[Any], None]:
    return lambda inputs: np.savetxt(inputs.poses / "frame_0000000005.txt", matrix)


def intrinsics(matrix: np.ndarray) -> Callable[[Any], None]:
    return lambda inputs: np.savetxt(inputs.intrinsics, matrix)


def second_frame(content: bytes) -> Callable[[Any], object]:
    return lambda inputs: (inputs.video / "frame_0000000005.png").write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Any], object], str]] = {
    "empty cloud": (lambda inputs: np.save(inputs.cloud, np.zeros((0, 6))), "holds no points"),
    "NaN in the cloud": (nan_points, "56 of 60 points have coordinates that are NaN or infinite"),
    "no colours": (no_colours, "no colours"),
    "cloud not in metres": (kilometres, "points must be in metres"),
    "pickled cloud": (lambda inputs: np.save(inputs.cloud, np.full((2, 6), {}), allow_pickle=True), "not a plain .npy"),
    "cloud of nonsense": (lambda inputs: inputs.cloud.write_bytes(b"nonsense"), "not a plain .npy"),
    "no cloud": (lambda inputs: inputs.cloud.unlink(), "expected one of points.npy, points.ply, points.glb"),
    "scaled pose": (pose(np.diag([2.0, 2, 2, 1])), "frame_0000000005.txt: not rigid"),
    "mirrored pose": (pose(np.diag([1.0, 1, -1, 1])), "mirrors (determinant -1)"),
    "pose with another last row": (pose(np.diag([1.0, 1, 1, 2])), "its last row is [0.0, 0.0, 0.0, 2.0]"),
    "NaN pose": (pose(np.full((4, 4), np.nan)), "holds NaN or infinity"),
    "2x4 pose": (pose(np.eye(4)[:2]), "expected 4x4 numbers, found [2, 4]"),
    "no frame rate": (lambda inputs: inputs.video.joinpath("clip.json").unlink(), "--no-time-instruction"),
    "no poses": (lambda inputs: [file.unlink() for file in inputs.poses.iterdir()], "no poses"),
    "transposed intrinsics": (
        lambda inputs: np.savetxt(inputs.intrinsics, np.loadtxt(inputs.intrinsics).T),
        "expected 0 0 1",
    ),
    "2x2 intrinsics": (intrinsics(np.eye(2)), "K.txt: expected 3x3 numbers, found [2, 2]"),
    "intrinsics of zeros": (intrinsics(np.diag([0, 0, 1])), "focal lengths are 0 and 0"),
    "no intrinsics": (lambda inputs: inputs.intrinsics.unlink(), "K.txt: no such file"),
    "empty frame": (second_frame(b""), "frame_0000000005.png: unreadable"),
    "frame of nonsense": (second_frame(b"nonsense"), "frame_0000000005.png: unreadable"),
    "frame of another size": (
        lambda inputs: Image.new("RGB", (20, 30)).save(inputs.video / "frame_0000000005.png"),
        "frame_0000000005.png: is 20x30",
    ),
    "no frames": (lambda inputs: [file.unlink() for file in inputs.video.glob("*.png")], "the folder holds no .jpg"),
    "two frames of one number": (
        lambda inputs: Image.new("RGB", (40, 30)).save(inputs.video / "frame_5.png"),
        "have the same number",
    ),
    "clip.json of nonsense": (
        lambda inputs: (inputs.video / "clip.json").write_text("{"),
        "clip.json: expected a JSON",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_inputs_that_cannot_be(run, inputs, damage: Callable[[Any], object], words: str) -> None:
    damage(inputs)
    assert_refused(run("--quiet", "--frames", 3), words)


def test_a_video_that_cannot_be_read(run, tmp_path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"nonsense")
    assert_refused(run("--quiet", "--video", tmp_path / "clip.mp4"), "clip.mp4: unreadable")


def test_frames_that_no_pose_is_named_like(run, inputs) -> None:
    for name, file in zip("abc", sorted(inputs.poses.iterdir()), strict=True):
        file.rename(file.with_stem(f"pose_{name}"))
    assert_refused(run("--quiet"), "poses like pose_a")


def test_quiet_keeps_warnings(run, inputs) -> None:
    Image.new("RGB", (40, 30)).save(inputs.video / "thumbnail.png")
    result = run("--quiet")
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "left out, 1 (thumbnail.png)" in result.stderr


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed graph": (lambda bundle: flip(bundle / "onnx" / "points.onnx"), "points.onnx: its SHA-256 differs"),
    "changed weights": (lambda bundle: flip(bundle / "onnx" / "points.data"), "points.data: its SHA-256 differs"),
    "changed model": (lambda bundle: flip(bundle / "llm" / "Q4_K_M.gguf"), "Q4_K_M.gguf: its SHA-256 differs"),
    "truncated model": (lambda bundle: (bundle / "llm" / "Q4_K_M.gguf").write_bytes(b"GGUF"), "has 4 bytes"),
    "missing graph": (lambda bundle: (bundle / "onnx" / "vision.cpu.onnx").unlink(), "vision.cpu.onnx is missing"),
    "missing manifest": (lambda bundle: (bundle / "manifest.json").unlink(), "no manifest.json"),
    "damaged manifest": (lambda bundle: (bundle / "manifest.json").write_text("{"), "manifest.json: damaged"),
    "manifest of another version": (
        lambda bundle: (bundle / "manifest.json").write_text('{"schema": 99}'),
        "schema 99, this program reads schema 1",
    ),
}


@pytest.mark.parametrize(("damage", "words"), BUNDLES.values(), ids=BUNDLES)
def test_bundles_that_cannot_be(run, bundle, damage: Callable[[Path], object], words: str) -> None:
    damage(bundle)
    assert_refused(run("--quiet", bundle=bundle), words)


def test_check_digests_reads_what_looks_unchanged(run, bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STLLM_CACHE", str(tmp_path / "cache"))
    assert run("--quiet", bundle=bundle).exit_code == 0
    memory = tmp_path / "cache" / "digests.json"
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), "f" * 64)))
    assert_refused(run("--quiet", bundle=bundle), "SHA-256 differs")
    assert run("--quiet", "--check-digests", bundle=bundle).exit_code == 0


@pytest.mark.parametrize("options", [["--frames", 9], ["--question", "<image>"], ["--max-new-tokens", 0]])
def test_after_an_error_nothing_is_half_written(run, tmp_path, options: list[object]) -> None:
    before = files_below(tmp_path)
    assert run("--dump", tmp_path / "dump.safetensors", *options).exit_code == 2
    assert files_below(tmp_path) == before


def test_after_an_error_an_older_dump_is_kept(run, tmp_path) -> None:
    file = tmp_path / "dump.safetensors"
    file.write_bytes(b"older")
    assert run("--dump", file, "--frames", 9).exit_code == 2
    assert file.read_bytes() == b"older"


def test_a_dump_cannot_replace_a_folder(run, tmp_path) -> None:
    before = files_below(tmp_path)
    assert_refused(run("--quiet", "--dump", tmp_path), f"--dump {tmp_path}")
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("option", ["--bundle", "--scene", "--video", "--question"])
def test_sources_and_question_are_required(stllm, option: str) -> None:
    given = {"--bundle": "b", "--scene": "s", "--video": "v", "--question": "q"}
    del given[option]
    result = stllm("run", *(word for pair in given.items() for word in pair))
    assert result.exit_code == 2
    assert option in result.stderr
    assert ("go together" if option in ("--scene", "--video") else "Missing option") in result.stderr


def test_unseen_points_are_warned_of_and_the_answer_still_comes(run) -> None:
    result = run("--pose-convention", "c2w-opengl")
    assert result.exit_code == 0
    assert result.stdout.strip()
    assert result.stderr.count("--pose-convention") == 1
