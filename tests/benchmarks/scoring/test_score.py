"""Scores by type, baselines, and the command with every kind of bad file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.scoring.score import score
from stllm_edge.runtime.errors import BadInput

Record = dict[str, str]
ANSWERS = ["In front.", "To the left.", "Behind.", "To the right."]


def record(question_type: str, gt: str, pred: str, query: str = "Where is it?") -> Record:
    record.count += 1  # type: ignore[attr-defined]
    return {"id": str(record.count), "question_type": question_type, "query": query, "gt": gt, "pred": pred}  # type: ignore[attr-defined]


record.count = 0  # type: ignore[attr-defined]


def questions(n: int, query: Callable[[int, int], str], seed: int = 0) -> list[Record]:
    """Balanced directions, every answer wrong; `query` gets the question's number and the answer's."""
    answers = np.random.default_rng(seed).permutation(np.arange(n) % len(ANSWERS))
    return [
        record("relative_direction", ANSWERS[answer], "", query(number, int(answer)))
        for number, answer in enumerate(answers)
    ]


def test_exact_normalised_and_parsed_matches_by_type() -> None:
    report = score(
        [
            record("relative_direction", "To the left.", "To the left."),
            record("relative_direction", "To the left.", "to the left"),
            record("relative_direction", "To the left.", "It is on your left-hand side."),
            record("relative_direction", "To the left.", "It is on your left or on your right."),
            record("relative_distance", "About 2 meters.", "200 cm"),
            record("relative_distance", "About 2 meters.", "about two meters"),
            record("find_my_item", "On the red chair.", "On red chair"),
            record("find_my_item", "On the red chair.", "To the left, on the blue chair."),
        ]
    )
    direction, distance, item = (
        next(one for one in report.types if one.question_type == name)
        for name in ("relative_direction", "relative_distance", "find_my_item")
    )
    assert [direction.n, distance.n, item.n, report.overall.n] == [4, 2, 2, 8]
    assert [direction.read, distance.read, item.read, report.overall.read] == [4, 2, 0, 6]
    assert [direction.exact.value, direction.normalised.value, direction.parsed.value] == [0.25, 0.5, 0.75]
    assert [distance.exact.value, distance.normalised.value, distance.parsed.value] == [0.0, 0.5, 1.0]
    assert [item.exact.value, item.normalised.value, item.parsed.value] == [0.0, 0.5, 0.5]
    assert report.overall.parsed.value == pytest.approx(6 / 8)
    assert report.overall.parsed.low < 6 / 8 < report.overall.parsed.high


def test_texts_alike_score_full_marks_everywhere() -> None:
    texts = ["Turn left and take the red cup.", "Walk on until that blue sofa.", "Nothing more can be done here."]
    overall = score([record("all", text, text) for text in texts]).overall
    assert [overall.exact.value, overall.rouge_l.value] == [1.0, 1.0]
    assert [overall.bleu.value, overall.cider_d.value] == pytest.approx([100.0, 10.0])


def test_question_only_finds_what_the_wording_gives_away() -> None:
    blind = score(questions(80, lambda number, answer: f"Where is the {['cup', 'mug', 'box', 'pan'][answer]}?"))
    assert blind.overall.question_only.value == 1.0
    assert blind.overall.majority.value == 0.25
    assert blind.overall.parsed.value == 0.0


def test_question_only_stays_near_chance_where_the_wording_says_nothing() -> None:
    words = np.random.default_rng(1).integers(8, size=400)
    blind = score(questions(400, lambda number, answer: f"Where is the thing{words[number]}?"))
    assert abs(blind.overall.question_only.value - 0.25) < 0.08


def test_baselines_learn_from_the_training_split_when_there_is_one() -> None:
    scored = questions(20, lambda number, answer: "Where is the cup?")
    train = [{"question_type": "relative_direction", "query": "Where is the cup?", "gt": "On your left."}]
    train += [{"question_type": "find_my_item", "query": "Where is the cup?", "gt": "In front."}] * 5
    report = score(scored, train=train)
    assert report.overall.majority.value == 0.25
    assert report.overall.question_only.value == 0.25
    assert "learned from the training split" in str(report)

    with pytest.raises(BadInput, match="the training split has no question of type relative_distance"):
        score([record("relative_distance", "About 1 meter.", "")], train=train)


def test_scores_depend_on_the_seed_alone() -> None:
    scored = questions(40, lambda number, answer: f"Where is thing {number % 7}?")
    assert score(scored, seed=3) == score(scored, seed=3)
    assert score(scored, seed=3).to_json() != score(scored, seed=4).to_json()


def test_one_question_alone_can_be_scored() -> None:
    report = score([record("relative_direction", "Behind.", "Behind.")])
    assert (report.overall.parsed.value, report.overall.question_only.value) == (1.0, 0.0)


def test_sentence_similarity_has_a_column_only_where_it_was_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [record("relative_direction", "Behind.", "Behind.")]
    assert "similarity" not in str(score(answers))
    similar = "stllm_edge.benchmarks.scoring.score.sentence_similarity"
    monkeypatch.setattr(similar, lambda references, predictions: np.array([0.5]))
    assert "0.500 [0.500, 0.500]" in str(score(answers))


def test_nothing_cannot_be_scored() -> None:
    with pytest.raises(BadInput, match="there are no answers to score"):
        score([])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A run's results: a header, two types."""
    records = [record("relative_direction", "Behind.", "behind you"), record("find_my_item", "On the bed.", "On a bed")]
    path = tmp_path / "results.jsonl"
    lines = [{"header": {"bundle": "digest"}}, *({**one, "seconds": 0.1} for one in records)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_command_prints_an_aligned_table(stllm: Any, results: Path) -> None:
    result = stllm("bench", "rea", "score", results, "--quiet")
    assert result.exit_code == 0, result.output
    accuracies, similarities, note = result.stdout.split("\n\n")
    header, item, direction, overall = accuracies.splitlines()
    assert header.split()[:3] == ["n", "exact", "%"]
    assert [line.split()[0] for line in (item, direction, overall)] == ["find_my_item", "relative_direction", "overall"]
    assert {line.index("[") for line in (item, direction, overall)} <= set(range(len(header)))
    assert header.index("parsed %") == overall.index("100.0 [", header.index("parsed %"))
    assert "CIDEr-D" in similarities
    assert note.startswith("95 % intervals; majority is that of these questions")


def test_command_prints_json(stllm: Any, results: Path, tmp_path: Path) -> None:
    turns = (("human", "<pointcloud><image>Where?"), ("gpt", "Behind."))
    entry: dict[str, Any] = {"conversations": [{"from": speaker, "value": text} for speaker, text in turns]}
    train = [entry | {"metadata": {"question_type": name}} for name in ("relative_direction", "find_my_item")]
    (tmp_path / "train.json").write_text(json.dumps(train))
    result = stllm("bench", "rea", "score", results, "--train", tmp_path / "train.json", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["trained"] == "train"
    assert [one["majority"]["value"] for one in report["types"]] == [0.0, 1.0]
    assert report["overall"]["parsed"]["value"] == 1.0


def test_graders_list_without_types_is_one_type(stllm: Any, tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([{"query": "<pointcloud><image>Where?", "gt": "Behind.", "pred": "assistant\nBehind."}]))
    report = json.loads(stllm("bench", "rea", "score", path, "--json", "--quiet").stdout)
    assert [one["question_type"] for one in report["types"]] == ["all"]
    assert report["overall"]["exact"]["value"] == 1.0


GOOD = '{"id": "a", "query": "q", "gt": "g", "pred": "p"}'
BAD_PREDICTIONS = {
    "": "holds no answers",
    "[]": "holds no answers",
    '{"header": {}}\n': "holds no answers",
    '[{"query": "q"': "not JSON (line 1",
    f"{GOOD}\nnonsense\n{GOOD}": "line 2: not JSON (Expecting value)",
    f'{GOOD}\n{{"id": "b", "que': "line 2: not JSON (Unterminated string starting at); the run was cut off: resume it",
    f"{GOOD}\n{GOOD}": "line 2: id a occurs twice",
    '[{"query": "q", "gt": "g"}]': "entry 0: pred is missing",
    '[{"query": "q", "gt": 3, "pred": "p"}]': "entry 0: gt is not a string",
    '["text"]': "entry 0: expected an object with query, gt and pred, found str",
    "[1": "not JSON",
}
ASKED = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]
BAD_TRAINING = {
    "{}": "expected a list of entries, found dict",
    "[]": "expected a list of entries, found an empty list",
    '[{"question": "q"}]': "entry 0 lacks conversations; give a JSON file of the REA release",
    json.dumps([{"conversations": ASKED, "metadata": {"question_type": 1}}]): "has metadata.question_type 1, expected",
}


@pytest.mark.parametrize("content", BAD_PREDICTIONS)
def test_bad_predictions_are_refused_in_one_line(content: str, stllm: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(content)
    refused(stllm("bench", "rea", "score", path), path, BAD_PREDICTIONS[content])


@pytest.mark.parametrize("content", BAD_TRAINING)
def test_bad_training_files_are_refused_in_one_line(content: str, stllm: Any, results: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(content)
    refused(stllm("bench", "rea", "score", results, "--train", path), path, BAD_TRAINING[content])


def test_a_file_that_is_not_there_or_not_text_is_refused(stllm: Any, tmp_path: Path) -> None:
    refused(stllm("bench", "rea", "score", tmp_path / "absent"), tmp_path / "absent", "cannot be read (No such file")
    refused(stllm("bench", "rea", "score", tmp_path), tmp_path, "cannot be read (Is a directory)")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    refused(stllm("bench", "rea", "score", tmp_path / "binary"), tmp_path / "binary", "cannot be read (not UTF-8 text)")


def refused(result: Any, path: Path, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert str(path) in line
    assert message in line
