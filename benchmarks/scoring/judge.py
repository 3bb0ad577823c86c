"""An LLM as a judge of answers: prompts for a batch, or verdicts from an OpenAI-compatible endpoint."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.files import atomic_path
from ...runtime.errors import BadInput
from ..rea.journal import Item, Journal
from .chat import Endpoint
from .metrics import Estimate, Resampling, wilson
from .predictions import Record, read_predictions

__all__ = ["SCALES", "Judgement", "judge", "judge_file", "read_verdict", "write_prompts_file"]

LOG = logging.getLogger(__name__)
SCALES = ("yes-no", "0-5")
SYSTEM = "You compare an answer about a room and an action with the reference answer. You are strict about facts only."
CRITERIA = {
    "relative_direction": "It must give the same directions relative to the person, for every action and object.",
    "relative_distance": "It must give the same distance, or say of the same object that it is closer or farther.",
    "find_my_item": "It must name the same place of the item and, where the reference says it, a like way there.",
    "furniture_affordance": "It must name the same object or the same use of it.",
    "action_planning": "It must name the same next step and a way there that agrees with the reference.",
}
ANY_TYPE = "It must state the same facts as the reference."
REQUESTS = {
    "yes-no": "Does the answer say what the reference says? Wording and further details do not matter. "
    "Reply with one word: yes or no.",
    "0-5": "How well does the answer say what the reference says? 5: all of it; 3: about half; 0: nothing, or the "
    "contrary. Wording and further details do not matter. Reply with one whole number from 0 to 5.",
}
# how a line of prompts begins
PROMPT = b'{"custom_id"'
THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
VERDICTS = {
    "yes-no": re.compile(r"\b(?:(yes|(?<!not )correct)|no|not correct|wrong|incorrect)\b"),
    "0-5": re.compile(r"(?<![\d.])(\d+)(?:\.0+)?(?: ?/ ?5| out of 5)?(?![\d.]*\d)"),
}
MARKUP = " \n*_#\"'`("


@dataclass(frozen=True)
class Judgement:
    """Verdicts by type and overall.

    Attributes:
        scale: "yes-no" (1 or 0) or "0-5".
        types: question type to questions, mean verdict with its 95 % interval, and replies without a readable verdict,
            which count as 0.
    """

    scale: str
    types: dict[str, tuple[int, Estimate, int]]

    def __str__(self) -> str:
        scale, unit, decimals = (100, "yes %", 1) if self.scale == "yes-no" else (1, "mean of 0-5", 2)
        lines = [f"{'':20}  {'n':>5}  {unit:22}  unreadable"]
        for name, (n, estimate, unreadable) in self.types.items():
            value, low, high = (f"{scale * x:.{decimals}f}" for x in (estimate.value, estimate.low, estimate.high))
            lines.append(f"{name:20}  {n:5}  {f'{value} [{low}, {high}]':22}  {unreadable}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The fields as one line of JSON."""
        types = {
            name: {"n": n, "mean": asdict(mean), "unreadable": unreadable}
            for name, (n, mean, unreadable) in self.types.items()
        }
        return json.dumps({"scale": self.scale, "types": types})


def request_body(record: Record, model: str, scale: str) -> dict[str, Any]:
    """A chat completion that asks for one verdict."""
    criteria = CRITERIA.get(record["question_type"], ANY_TYPE)
    parts = (f"Question: {record['query']}", f"Reference: {record['gt']}", f"Answer: {record['pred']}")
    content = "\n".join([*parts, "", criteria, REQUESTS[scale]])
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    return {"model": model, "messages": messages, "temperature": 0}


def write_prompts_file(predictions: Path, out: Path, model: str, scale: str) -> int:
    """Write prompts for the answers in a file; returns how many.

    Raises:
        BadInput: a file is not what it has to be, or both are the same.
    """
    records = read_apart(predictions, out)
    write_prompts(records, out, model, scale)
    return len(records)


def judge_file(predictions: Path, out: Path, endpoint: Endpoint, *, model: str, scale: str) -> Judgement:
    """Judge the answers in a file.

    Raises:
        BadInput: a file is not what it has to be, both are the same, or the endpoint does not answer.
    """
    return judge(read_apart(predictions, out), out, endpoint.complete, model=model, scale=scale)


def read_apart(predictions: Path, out: Path) -> list[Record]:
    """The answers in a file, which must not be the one that is written."""
    records = read_predictions(predictions)
    if out.exists() and out.samefile(predictions):
        raise BadInput(f"--out {out}: is the file of answers; choose another")
    return records


def write_prompts(records: Sequence[Record], out: Path, model: str, scale: str) -> None:
    """Write one request a line, in the form of OpenAI's batch API.

    Raises:
        BadInput: `out` cannot be written, or is a file of something else.
    """
    try:
        if out.exists():
            with out.open("rb") as there:
                if there.read(len(PROMPT)) != PROMPT:
                    raise BadInput(f"--out {out}: exists and is not a file of prompts; choose another")
        with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
            for record in records:
                line = {"custom_id": record["id"], "method": "POST", "url": "/v1/chat/completions"}
                line_with_body = line | {"body": request_body(record, model, scale)}
                file.write(json.dumps(line_with_body, ensure_ascii=False) + "\n")
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error.strerror})") from None


def judge(
    records: Sequence[Record],
    out: Path,
    complete: Callable[[dict[str, Any]], str],
    *,
    model: str,
    scale: str,
    seed: int = 0,
) -> Judgement:
    """Ask for a verdict on every answer; verdicts already in `out` are kept, and each new one is on disk at once.

    Args:
        records: answered questions.
        out: JSON lines: a header, then id, question_type, verdict (null if unreadable) and reply.
        complete: a request's body to the reply's text.
        model: the judge's name.
        scale: one of `SCALES`.
        seed: of the bootstrap.

    Raises:
        BadInput: `out` holds verdicts of another judge, scale or set of answers.
    """
    bodies = [request_body(record, model, scale) for record in records]
    asked = [[record["id"], body["messages"]] for record, body in zip(records, bodies, strict=True)]
    prompts = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    header = {"model": model, "scale": scale, "prompts": prompts}
    with Journal.open(out, header, partial(read_verdicts, out, header)) as journal:
        verdicts = {item["id"]: item for item in journal.items}
        if verdicts:
            LOG.info("%d of %d verdicts are in %s already", len(verdicts), len(records), out)
        for record, body in zip(records, bodies, strict=True):
            name, question_type = record["id"], record["question_type"]
            if name not in verdicts:
                reply = complete(body)
                verdict = read_verdict(reply, scale)
                verdicts[name] = {"id": name, "question_type": question_type, "verdict": verdict, "reply": reply}
                journal.append(verdicts[name])
    return summarise([verdicts[record["id"]] for record in records], scale, seed)


def read_verdicts(path: Path, header: dict[str, Any], whole: bytes) -> list[Item]:
    """Verdicts in a file, which must be of the same header."""
    try:
        first, *items = (json.loads(line) for line in whole.splitlines())
        found = dict(first["header"])
        if len({item["id"] for item in items}) < len(items):
            raise ValueError("an id is there twice")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput(f"{path}: exists and is not a file of this command; choose another --out") from None
    if found != header:
        differing = ", ".join(sorted(key for key in found.keys() | header if found.get(key) != header.get(key)))
        raise BadInput(f"{path}: was written with another {differing}; choose another --out or delete it")
    return items


def read_verdict(reply: str, scale: str) -> int | None:
    """1 or 0 for yes or no, or 0 to 5: what a reply starts with, or all that it says; None if that is not one verdict.

    The thoughts of reasoning models are ignored.
    """
    said = THOUGHTS.sub(" ", reply).lower().lstrip(MARKUP)
    pattern = VERDICTS[scale]
    first = pattern.match(said)
    found = [first] if first else list(pattern.finditer(said))
    verdicts = {int(match[1] is not None) if scale == "yes-no" else int(match[1]) for match in found}
    return verdicts.pop() if len(verdicts) == 1 and max(verdicts) <= 5 else None


def summarise(items: Sequence[dict[str, Any]], scale: str, seed: int) -> Judgement:
    names = sorted({item["question_type"] for item in items})
    groups = {name: [item for item in items if item["question_type"] == name] for name in names}
    if len(names) > 1:
        groups["overall"] = list(items)
    return Judgement(scale, {name: summary(group, scale, seed) for name, group in groups.items()})


def summary(items: Sequence[dict[str, Any]], scale: str, seed: int) -> tuple[int, Estimate, int]:
    verdicts = np.array([item["verdict"] or 0 for item in items], np.float64)
    mean = wilson(int(verdicts.sum()), len(items)) if scale == "yes-no" else Resampling(len(items), seed).mean(verdicts)
    return len(items), mean, sum(item["verdict"] is None for item in items)
