"""Answers to the same questions with encoders of two precisions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...calib.end import End
from ...runtime.bundle.precisions import FP32
from ...runtime.console import Progress
from ...runtime.errors import BadInput
from ...runtime.options import Options
from ...runtime.session import Session
from ..rea.answering import Request, answer_clip
from ..rea.dataset import Broken, ReaDataset, Sample, by_clip
from ..rea.subset import Subset

__all__ = ["compare_answers", "questions"]


def questions(rea: Path | None, root: Path | None, subset: str) -> list[Sample]:
    """Questions of a data set in REA's layout; none where no file is given."""
    if rea is None:
        return []
    if root is None:
        raise BadInput(f"--rea {rea}: --root is missing, the folder that its paths are relative to")
    return Subset(subset).of(ReaDataset(rea, root).samples)


def compare_answers(
    bundle: Path, end: End, asked: Sequence[Sample], quant: str | None, max_new_tokens: int, progress: Progress
) -> End:
    """How many answers are the same as with fp32; a question that cannot be asked is an error.

    Raises:
        BadInput: a file of a question is missing, or is not what it has to be.
    """
    given = [
        answers(Request(bundle, Options(precision, quant, resident=True), None, max_new_tokens), asked, progress)
        for precision in (FP32, end.precision)
    ]
    same = sum(given[0][id_] == given[1][id_] for id_ in given[0])
    return replace(end, questions=len(asked), agreement=same / len(asked))


def answers(request: Request, asked: Sequence[Sample], progress: Progress) -> dict[str, str]:
    """Texts by id."""
    found: dict[str, str] = {}
    request.check()
    with (
        Session(request.bundle, request.options) as session,
        progress.bar(f"answers, {request.options.precision}", len(asked)) as advance,
    ):
        for clip in by_clip(asked):
            for record in answer_clip(session, clip, request):
                if isinstance(record, Broken):
                    raise BadInput(f"question {record.id}: {record.reason}")
                found[str(record["id"])] = str(record["pred"])
                advance(1)
    return found
