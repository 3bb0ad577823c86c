"""What `stllm-bench rea run` does: its options to a run, the score to stdout."""

import logging
from dataclasses import fields
from typing import Any

import click

from ...runtime.console import Progress
from ...runtime.errors import MissingDependency
from ...runtime.options import Options
from .dataset import ReaDataset, by_clip
from .run import Shard, run_subset
from .subset import Subset

__all__ = ["answer_subset"]

LOG = logging.getLogger(__name__)


def answer_subset(values: dict[str, Any]) -> int:
    """Answer, report and score; `values` are the options of `rea run` by name. Returns how many answers there are."""
    dataset = ReaDataset(values["file"], values["root"], fps=values["fps"])
    shard = Shard.parse(values["shard"])
    subset = Subset(values["spec"], values["types"], values["scenes"], values["seed"])
    groups = shard.of(by_clip(subset.of(dataset.samples)))
    with Progress(values["quiet"]).bar("answer", sum(map(len, groups))) as advance:
        run = run_subset(
            values["bundle"],
            dataset,
            values["out"],
            options=Options(**{f.name: values[f.name] for f in fields(Options) if f.name in values}),
            subset=subset,
            shard=shard,
            frames=values["frames"],
            max_new_tokens=values["max_new_tokens"],
            fps=values["fps"],
            scheduler=values["scheduler"],
            swapped=values["swapped"],
            advance=advance,
        )
    LOG.info("%d answers, %d of them new, in %s", len(run.records), run.answered, run.results)
    if run.broken:
        LOG.warning("%d samples were skipped, for the reasons above", len(run.broken))
    if run.records:
        from ..scoring.score import score

        try:
            click.echo(str(score(run.records)))
        except MissingDependency as error:
            LOG.warning("the answers are not scored: %s", error)
    return len(run.records)
