from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime.errors import BadInput
from stllm_edge.runtime.llm.prompt import (
    IMAGE_ID,
    POINT_CLOUD_ID,
    Prompt,
    build_prompt,
    time_instruction,
    without_header,
)

SYSTEM = (
    "<|im_start|>system\nYou are a helpful assistant.The first 64 tokens by user encode learnable queries representing "
    "objects and locations in the 3D scene. The following tokens represent egocentric video of recent actions. Use "
    "both to reason about spatial references and temporal context when answering.<|im_end|>\n"
)
HEADER = "<|im_start|>assistant\n"

TIMING = (4.0, (0.5, 2.25))


def characters(text: str, special: bool = True) -> list[int]:
    """A tokenizer of one id a character."""
    return [ord(character) for character in text]


def text_of(ids: np.ndarray) -> str:
    return "".join({POINT_CLOUD_ID: "<pointcloud>", IMAGE_ID: "<image>"}.get(token) or chr(token) for token in ids)


def ask(question: str, **options: object) -> Prompt:
    return build_prompt(question, characters, **options)


def test_the_template_is_filled() -> None:
    user = "<|im_start|>user\n<pointcloud>\n<image>\nWhere is the cup?<|im_end|>\n"
    prompt = ask("Where is the cup?")
    assert prompt.text == SYSTEM + user + HEADER
    assert text_of(prompt.token_ids) == prompt.text


def test_the_bare_form_ends_after_the_user_turn() -> None:
    bare = ask("Where?", assistant_header=False)
    assert bare.text.endswith("Where?<|im_end|>\n")
    assert bare.text + HEADER == ask("Where?").text


def test_the_time_instruction_is_a_line_before_the_question() -> None:
    assert f"<image>\n{time_instruction(*TIMING)}\nWhere?<|im_end|>\n" in ask("Where?", timing=TIMING).text


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("timing", [None, TIMING])
def test_the_aligner_reads_the_user_turn_without_placeholders(header: bool, timing: Any) -> None:
    prompt = ask("Where?", timing=timing, assistant_header=header)
    line = f"{time_instruction(*timing)}\n" if timing else ""
    assert text_of(prompt.aligner_token_ids) == f"<|im_start|>user\n\n\n{line}Where?<|im_end|>\n"


def test_each_placeholder_stands_once_and_in_order() -> None:
    ids = ask("Where?").token_ids
    assert ids.dtype == np.int64
    assert ids[ids < 0].tolist() == [POINT_CLOUD_ID, IMAGE_ID] == [-300, -200]


def test_pieces_are_tokenised_separately() -> None:
    """A tokenizer that swallows its whole text shows the cuts."""
    pieces: list[str] = []

    def whole(text: str, special: bool = True) -> list[int]:
        pieces.append(text if special else f"as text: {text}")
        return [len(pieces)]

    build_prompt("Where?", whole)
    assert sorted(pieces) == sorted([SYSTEM, "<|im_start|>user\n", "\n", "as text: \nWhere?", "<|im_end|>\n", HEADER])


def test_questions_are_normalised_to_composed_characters() -> None:
    assert ask("cafe\u0301?").text == ask("caf\u00e9?").text


@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_empty_questions_are_refused(question: str) -> None:
    with pytest.raises(BadInput, match="question is empty"):
        ask(question)


@pytest.mark.parametrize("placeholder", ["<pointcloud>", "<image>"])
def test_questions_with_a_placeholder_are_refused(placeholder: str) -> None:
    with pytest.raises(BadInput, match=f"holds {placeholder}"):
        ask(f"What is in {placeholder}?")


def test_time_instruction_has_two_decimals_and_no_space_after_the_times() -> None:
    assert time_instruction(4.267, [7 / 30, 20 / 30, 1.1]) == (
        "The video lasts for 4.27 seconds, and 3 frames are uniformly sampled from it. These frames are located at "
        "0.23s,0.67s,1.10s.Please answer the following questions related to this video."
    )


def test_time_instruction_for_one_frame_at_the_start() -> None:
    assert "and 1 frames are uniformly sampled from it. These frames are located at 0.00s.Please" in time_instruction(
        1, [0]
    )


def test_reference_prompt_is_reproduced(golden, golden_vocabulary) -> None:
    prompt = build_prompt(golden.case["question"], golden_vocabulary.tokenize, assistant_header=False)
    assert prompt.text == golden.case["prompt"]
    assert prompt.token_ids.tolist() == golden.case["prompt_token_ids"]
    aligner = [token for token in golden.case["aligner_token_ids"] if token >= 0]
    assert prompt.aligner_token_ids.tolist() == aligner


def test_reference_prompt_with_times_is_reproduced(golden, golden_vocabulary) -> None:
    timed = golden.case["with_time_instruction"]
    times = [number / timed["fps"] for number in golden.case["frame_index"]]
    prompt = build_prompt(
        golden.case["question"],
        golden_vocabulary.tokenize,
        timing=(timed["video_seconds"], times),
        assistant_header=False,
    )
    assert prompt.text == timed["prompt"]
    assert prompt.token_ids.tolist() == timed["prompt_token_ids"]


def test_the_assistant_header_does_not_reach_the_aligner(golden, golden_vocabulary) -> None:
    prompt = build_prompt(golden.case["question"], golden_vocabulary.tokenize)
    bare = golden.case["prompt_token_ids"]
    assert prompt.token_ids[: len(bare)].tolist() == bare
    assert len(prompt.token_ids) > len(bare)
    assert prompt.aligner_token_ids.tolist() == [token for token in golden.case["aligner_token_ids"] if token >= 0]


# the header that the model writes itself


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([1, 2, 3, 9, 8], [9, 8]),
        ([9, 8], [9, 8]),
        ([1, 2, 9, 8], [1, 2, 9, 8]),
        ([1, 9, 1, 2, 3], [1, 9, 1, 2, 3]),
        ([1, 2, 3, 1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], []),
        ([1, 2], [1, 2]),
        ([], []),
    ],
)
def test_only_a_whole_header_at_the_start_is_left_out(ids: list[int], kept: list[int]) -> None:
    assert list(without_header(iter(ids), (1, 2, 3))) == kept


@pytest.mark.parametrize("ids", [[], [5], [5, 6, 7]])
def test_without_a_header_nothing_is_left_out(ids: list[int]) -> None:
    assert list(without_header(iter(ids), ())) == ids


def test_a_token_is_shown_as_soon_as_it_cannot_be_the_header() -> None:
    seen: list[int] = []

    def ids():
        for token in (1, 9, 8):
            seen.append(token)
            yield token

    stream = without_header(ids(), (1, 2, 3))
    assert next(stream) == 1
    assert seen == [1, 9]
