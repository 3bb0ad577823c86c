"""What there is to choose among."""

from pathlib import Path

import pytest
from stllm_edge.benchmarks.tuning.candidates import Choices, grid
from stllm_edge.runtime import BadBundle, BadInput, Bundle, Options
from stllm_edge.runtime.bundle.precisions import exactness


def test_all_that_a_bundle_holds_the_most_exact_first(tiny_bundle: Path) -> None:
    found = grid([tiny_bundle], Choices())
    assert len(found) == 2 * 3 * 4 * 2
    assert str(found[0]) == "fp32 F32, 32 frames, kv f16"
    assert str(found[1]) == "fp32 F32, 32 frames, kv q8_0"
    assert str(found[-1]) == "fp16 Q4_K_M, 4 frames, kv q8_0"
    assert [one.options.precision for one in found] == ["fp32"] * 24 + ["fp16"] * 24
    assert {one.options.frames for one in found} == {32, 16, 8, 4}
    # the bundle's own number repeats the frames of a short clip, as it does without a preset
    assert {one.frames for one in found} == {None, 16, 8, 4}
    assert {one.digest for one in found} == {
        Bundle(tiny_bundle).digest_of(precision, quant)
        for precision in ("fp32", "fp16")
        for quant in ("F32", "Q8_0", "Q4_K_M")
    }


def test_encoders_of_integers_come_last_and_mixes_by_their_coarsest(int8_bundle: Path) -> None:
    mix = "vision=int8,points=fp32,aligner=int8"
    found = grid([int8_bundle], Choices((), ("F32",), (4,), ("f16",)))
    assert [one.options.precision for one in found] == ["fp32", "fp16", "int8", mix]
    ranked = sorted([mix, "int8", "fp16", "points=fp16", "fp32", "vision=int8,aligner=fp16"], key=exactness)
    assert ranked == ["fp32", "points=fp16", "fp16", "int8", "vision=int8,aligner=fp16", mix]


def test_choices_and_options(tiny_bundle: Path) -> None:
    (one,) = grid([tiny_bundle], Choices(("fp16",), ("Q8_0",), (2, 2), ("f32",)))
    options = one.session_options(Options(threads=1, kv="f16"), resident=True)
    assert options == Options(precision="fp16", quant="Q8_0", kv="f32", threads=1, resident=True, cache_memory=0)
    assert (one.frames, str(one)) == (2, "fp16 Q8_0, 2 frames, kv f32")
    assert str(grid([tiny_bundle], Choices(("fp16",), ("Q8_0",), (1,), ("f32",)))[0]) == "fp16 Q8_0, 1 frame, kv f32"


def test_approximate_reuse_is_tried_where_it_is_asked_for_and_marked(tiny_bundle: Path) -> None:
    found = grid([tiny_bundle], Choices(("fp32",), ("F32",), (2,), ("f16",), (0.0, 0.15)))
    assert [str(one).partition("kv f16")[2] for one in found] == [
        "",
        ", approximate reuse, 15 % recomputed",
        ", approximate reuse, 0 % recomputed",
    ]
    options = found[1].session_options(Options(), resident=True)
    assert (options.reuse_video, options.recompute) == ("approximate", 0.15)
    assert found[0].session_options(Options(), resident=True).reuse_video is None


def test_the_same_bundle_twice_is_one_and_two_are_told_by_name(tiny_bundle: Path, tmp_path: Path) -> None:
    choices = Choices(("fp32",), ("Q8_0",), (2,), ("f16",))
    assert len(grid([tiny_bundle, tiny_bundle], choices)) == 1
    link = tmp_path / "other"
    link.symlink_to(tiny_bundle)
    # the same parts are measured once
    assert [str(one) for one in grid([tiny_bundle, link], choices)] == ["tiny fp32 Q8_0, 2 frames, kv f16"]


def test_without_flash_attention_keys_and_values_are_not_quantised(tiny_bundle: Path) -> None:
    assert {one.options.kv for one in grid([tiny_bundle], Choices(), flash_attention=False)} == {"f16"}


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (Choices(precisions=("int4",)), r"--precision int4: .*tiny does not hold it; held are fp32, fp16"),
        (Choices(quants=("Q2_K",)), r"--quant Q2_K: .*tiny does not hold it; held are F32, Q8_0, Q4_K_M"),
        (Choices(frames=(0,)), "--frames 0: expected at least 1"),
        (Choices(frames=(10**6,)), "--frames 1000000: expected at most 65536"),
        (Choices(recomputed=(1.5,)), "--recompute 150%: expected 0% up to less than 100%"),
        (Choices(kinds=("q3",)), "--kv q3: unknown; known are f32, f16, q8_0"),
    ],
)
def test_what_cannot_be_chosen(tiny_bundle: Path, choices: Choices, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        grid([tiny_bundle], choices)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match=r"no manifest\.json"):
        grid([tmp_path], Choices())
