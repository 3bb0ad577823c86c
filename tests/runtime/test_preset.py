"""Presets: written, read, held against a bundle, and applied below explicit options."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime import BadInput, Bundle, Options, Session
from stllm_edge.runtime.options import Request
from stllm_edge.runtime.preset import Measured, Preset, PresetOptions, read_preset

SHARE = (0.9, 0.8, 1.0)
MEASURED = Measured(
    "kitchen", "a board, 6 cores, 8.0 GB", "the CPU", 6, "ab" * 32, 200, 256, SHARE, SHARE, SHARE, 1.5, 10**9
)
OPTIONS = PresetOptions("fp16", "Q8_0", 3, "q8_0")


@pytest.fixture
def file(tiny_bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "preset.json"
    Preset(Bundle(tiny_bundle).digest_of("fp16", "Q8_0"), OPTIONS, MEASURED).write(path)
    return path


@pytest.fixture
def ask(stllm: Any, tiny_bundle: Path, sample: tuple[Path, Path]) -> Callable[..., Any]:
    def run(*more: object) -> Any:
        asked = ("-b", tiny_bundle, "-s", sample[0], "-V", sample[1], "-q", "Where is the mug?", "-n", 2, "--json")
        return stllm("run", *asked, *more)

    return run


def test_what_is_written_is_read(file: Path, tiny_bundle: Path) -> None:
    preset = read_preset(file)
    assert (preset.options, preset.measured) == (OPTIONS, MEASURED)
    preset.require_for(Bundle(tiny_bundle), file)


def test_the_digest_is_that_of_a_session(tiny_bundle: Path) -> None:
    options = Options(precision="fp16", quant="Q8_0")
    with Session(tiny_bundle, options) as session:
        assert session.digest == Bundle(tiny_bundle).digest_of("fp16", "Q8_0")
        assert session.digest != Bundle(tiny_bundle).digest_of("fp32", "Q8_0")


def test_explicit_options_win(file: Path, tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    preset, request, bundle = read_preset(file), Request("Where?", frames=7), Bundle(tiny_bundle)
    options, asked = preset.applied(bundle, Options(threads=2), request, set(), several=False)
    assert options == Options("fp16", "Q8_0", threads=2, kv="q8_0")
    assert asked == replace(request, frames=3)
    options, asked = preset.applied(bundle, Options(kv="f32"), request, {"kv", "frames", "question"}, several=False)
    assert (options.kv, options.quant, asked.frames) == ("f32", "Q8_0", 7)
    assert "measured on a board, 6 cores, 8.0 GB" in caplog.text
    assert "not taken from it: frames, kv" in caplog.text


def test_keys_and_values_are_kept_for_several_questions(file: Path, tiny_bundle: Path, caplog) -> None:
    caplog.set_level("INFO")
    preset, bundle = read_preset(file), Bundle(tiny_bundle)
    preset = replace(preset, options=replace(preset.options, recompute=0.15))
    assert str(preset.options).endswith("--reuse-video approximate --recompute 15%")
    several, _ = preset.applied(bundle, Options(), Request("?"), set(), several=True)
    assert (several.reuse_video, several.recompute) == ("approximate", 0.15)
    single, _ = preset.applied(bundle, Options(), Request("?"), set(), several=False)
    assert (single.reuse_video, single.recompute) == (None, None)
    assert "is for several questions, and left out" in caplog.text


def test_a_question_is_answered_as_the_preset_says(file: Path, ask: Callable[..., Any]) -> None:
    report = json.loads(ask("--preset", file).stdout)
    assert (report["precision"], report["quant"], report["frames"]) == ("fp16", "Q8_0", 3)
    # the default's own value counts as well where it is typed
    report = json.loads(ask("--preset", file, "--precision", "fp32", "-f", 2, "--kv", "f16").stdout)
    assert (report["precision"], report["quant"], report["frames"]) == ("fp32", "Q8_0", 2)


def test_the_bundles_own_number_of_frames_repeats_those_of_a_short_clip(file: Path, ask: Callable[..., Any]) -> None:
    nested(file, "options", frames=32)
    result = ask("--preset", file)
    assert json.loads(result.stdout)["frames"] == 32
    assert "32 frames are sampled from 4 with a pose" in result.stderr


def changed(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def nested(file: Path, key: str, **fields: Any) -> None:
    changed(file, **{key: json.loads(file.read_text())[key] | fields})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda file: changed(file, bundle="00" * 32),
            "was measured on the parts fp16 and Q8_0 of another bundle (kitchen",
        ),
        (lambda file: nested(file, "options", quant="Q2_K"), "tiny holds no fp16 with Q2_K"),
        (lambda file: changed(file, preset=2), "is of version 2, this program reads version 1"),
        (lambda file: changed(file, preset=True), "is of version true, this program reads version 1"),
        (lambda file: changed(file, more=1), "holds 'preset.more', as a newer version of this program writes it"),
        (lambda file: nested(file, "options", frames=0), "lacks or misstates 'preset.options' (0 frames"),
        (lambda file: nested(file, "options", frames="4"), "'preset.options.frames' (\"4\", expected a whole number)"),
        (lambda file: nested(file, "options", recompute=1.5), "(recompute 1.5, expected 0 up to less than 1)"),
        (lambda file: nested(file, "options", kv="q3"), "(kv 'q3', known are f32, f16, q8_0)"),
        (
            lambda file: nested(file, "measured", exact=[0.5]),
            "'preset.measured' (exact: expected a value and its two bounds",
        ),
        (
            lambda file: nested(file, "measured", agreement=[0.5, 0.6, 1.7]),
            "(agreement: expected a value and its two bounds",
        ),
        (lambda file: changed(file, options=None), "lacks or misstates 'preset.options'"),
        (lambda file: file.write_text("[" * 100_000), "is damaged ("),
        (lambda file: file.write_text("{}"), "is no preset; write it again with stllm-bench tune"),
        (lambda file: file.write_bytes(b"\xff\xfe"), "is damaged ("),
        (lambda file: file.unlink(), "cannot be read (No such file or directory)"),
    ],
)
def test_a_preset_that_cannot_be_used_is_one_line(
    file: Path, ask: Callable[..., Any], damage: Callable[[Path], Any], words: str
) -> None:
    damage(file)
    result = ask("--preset", file)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert f"--preset {file}: " in result.stderr
    assert words in result.stderr


def test_a_preset_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="the preset cannot be written"):
        Preset("00" * 32, OPTIONS, MEASURED).write(tmp_path / "file" / "preset.json")
