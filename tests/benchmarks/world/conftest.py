"""A small world of six rooms, written once."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.world.synth import Recipe, write_synth


@dataclass(frozen=True)
class World:
    folder: Path

    def entries(self, *splits: str) -> list[dict[str, Any]]:
        names = splits or ("train", "val")
        return [entry for name in names for entry in json.loads((self.folder / f"{name}.json").read_text())]

    def sidecar(self, scene: str) -> dict[str, Any]:
        return json.loads((self.folder / "world" / f"{scene}.json").read_text())

    def clips(self) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
        """One entry of every clip, its scene's truth and the clip's."""
        seen = set()
        for entry in self.entries():
            start = entry["metadata"]["query_start_frame"]
            if (entry["scene_id"], start) not in seen:
                seen.add((entry["scene_id"], start))
                truth = self.sidecar(entry["scene_id"])
                yield entry, truth, next(clip for clip in truth["clips"] if clip["query_start_frame"] == start)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("rea") / "world"
    write_synth(folder, Recipe(6, 3, val_share=0.34), processes=1)
    return World(folder)
