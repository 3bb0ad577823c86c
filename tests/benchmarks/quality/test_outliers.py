"""What importance matrices are worth to a model whose video is loud in a few channels."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from stllm_edge.benchmarks.checkpoints import TINY, TRAINED
from stllm_edge.benchmarks.latency.statistics import Interval
from stllm_edge.benchmarks.quality.evaluation import Measured
from stllm_edge.benchmarks.quality.metrics import Positions
from stllm_edge.benchmarks.quality.outliers import LOUDER, TEXT, VIDEO, WHOLE, Comparison, mean, write_loud
from stllm_edge.benchmarks.rea.prompts import opened
from stllm_edge.calib.importance.collector import Collector
from stllm_edge.calib.importance.prompts import Prompt, PromptStore
from stllm_edge.export.gguf.prompts import Prompt as Judged
from stllm_edge.export.gguf.sensitivity import Sensitivity
from stllm_edge.export.gguf.writer import gguf_names
from stllm_edge.export.model.streaming import EMBEDDING
from stllm_edge.runtime.console import Progress

QUIET = Progress(quiet=True)


def test_only_what_is_written_for_video_becomes_loud(tmp_path: Path) -> None:
    write_loud(tmp_path / "loud", TRAINED)
    loud, plain = (load_file(folder / "model.safetensors") for folder in (tmp_path / "loud", TRAINED))
    changed = {name for name in plain if not torch.equal(plain[name], loud[name])}
    assert changed == {EMBEDDING, *VIDEO}
    (silent,) = np.nonzero((loud[EMBEDDING] == 0).all(dim=0).numpy())
    assert len(silent) == 3
    for name in VIDEO:
        factor = torch.ones(len(plain[name]), *[1] * (plain[name].ndim - 1), dtype=plain[name].dtype)
        factor[silent] = LOUDER
        assert torch.equal(loud[name], plain[name] * factor)


def prompts(tensors: dict[str, torch.Tensor], seed: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Text, what the projector writes of random features, and text: embeddings [L, d], and classes of positions."""
    generator = torch.Generator().manual_seed(seed)
    weight, bias = (tensors[name].float() for name in VIDEO[:2])
    words = tensors[EMBEDDING].float()

    def text(length: int) -> torch.Tensor:
        return words[torch.randint(0, len(words), (length,), generator=generator)]

    found = []
    for _ in range(count):
        video = torch.randn(32, weight.shape[1], generator=generator) @ weight.T + bias
        rows = torch.cat([text(8), video, text(12)])
        found.append((rows.numpy(), np.repeat([0, 2, 0], [8, 32, 12]).astype(np.uint8)))
    return found


def test_a_matrix_of_whole_prompts_loses_least(tmp_path: Path) -> None:
    write_loud(tmp_path / "loud", geometry=TINY)
    checkpoint, inventory = opened(tmp_path / "loud", None)
    tensors = {name: checkpoint.tensor(name) for name in (EMBEDDING, *VIDEO)}
    names = gguf_names(inventory.used["llm"], inventory.geometry.llm)
    collected, unseen = prompts(tensors, 1, 4), prompts(tensors, 2, 4)
    columns = {new: checkpoint.shape(old)[1] for new, old in names.items() if len(checkpoint.shape(old)) > 1}
    importance: dict[str, dict[str, np.ndarray]] = {"none": {}}
    for name in (TEXT, WHOLE):
        store = PromptStore(tmp_path / name, inventory.geometry.llm.width, {})
        for place, (rows, classes) in enumerate(collected):
            kept = classes == 0 if name == TEXT else np.full(len(classes), True)
            store.append(Prompt(str(place), rows[kept], classes[kept]))
        sums = Collector(checkpoint, inventory, store, False, QUIET).run()
        described = {"datasets": (), "chunks": len(store), "chunk_size": store.longest}
        matrix = sums.of({"text": 1.0, "video": 1.0}, described)
        importance[name] = matrix.weights(columns, tmp_path)
    judged = [Judged(torch.from_numpy(rows), torch.from_numpy(classes == 0)) for rows, classes in unseen]
    blocks = [name for name in columns if name.startswith("blk.")]
    types = [dict.fromkeys(blocks, kind) for kind in ("Q4_K", "Q2_K")]
    losses = {
        name: np.array(Sensitivity(checkpoint, names, judged, given, QUIET).divergences(types))
        for name, given in importance.items()
    }
    assert (losses[WHOLE] < 0.9 * np.minimum(losses["none"], losses[TEXT])).all(), losses


def test_a_figure_is_best_whose_interval_meets_no_other() -> None:
    found = {"none": Interval(3.0, 2.5, 3.5), TEXT: Interval(2.0, 1.9, 2.1), WHOLE: Interval(1.0, 0.5, 1.8)}
    compared = Comparison("Q2_K", "video", 40, found)
    assert compared.best == WHOLE
    assert str(compared).endswith("| **1.00e+00 [5.00e-01, 1.80e+00]** |")
    assert Comparison("Q2_K", "video", 40, found | {WHOLE: Interval(1.0, 0.5, 1.95)}).best is None
    # the widest of the others may reach further down than the next
    assert Comparison("Q2_K", "video", 40, found | {"none": Interval(3.0, 1.0, 5.0)}).best is None


def test_each_prompt_counts_once_whatever_its_length() -> None:
    measured = Measured("", "", 0)
    for length, loss in ((2, 1.0), (6, 3.0)):
        values = np.full(length, loss)
        measured.questions.append(Positions(values, values > 0, values > 0, *[values] * 4))
        measured.classes.append(np.full(length, 1, np.uint8))
    assert mean(measured, "video").value == 2.0
