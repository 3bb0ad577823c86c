"""The small model on disk, in the trainer's layout."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from ...export.checkpoint.checkpoint import Checkpoint
from ...export.checkpoint.geometry import PREFIXES, take_inventory
from ...runtime.bundle.files import atomic_path
from ..checkpoints import DATA, write_descriptions
from .model import SmallModel
from .text import SPECIAL

__all__ = ["load", "save"]


def save(model: SmallModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a checkpoint: bfloat16, the point encoder in float32, as the trainer does."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: tokenizer.encode(token).ids[0] for token in SPECIAL}
    write_descriptions(folder, model.geometry, ids)
    with atomic_path(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    config = json.loads((DATA / "tokenizer_config.json").read_text(encoding="utf-8"))
    entries = config["added_tokens_decoder"].values()
    config["added_tokens_decoder"] = {str(ids[entry["content"]]): entry for entry in entries}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    tensors = {
        name: (tensor if name.startswith(PREFIXES["points"]) else tensor.bfloat16()).contiguous()
        for name, tensor in model.checkpoint_tensors()
        if not name.endswith("num_batches_tracked")
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


@torch.no_grad()
def load(folder: Path) -> tuple[SmallModel, Tokenizer]:
    """A model with a checkpoint's weights, for evaluation, and its tokenizer."""
    checkpoint = Checkpoint(folder)
    inventory = take_inventory(checkpoint)
    inventory.require_complete(folder)
    model = SmallModel(inventory.geometry).eval()
    tensors = dict(model.checkpoint_tensors())
    for names in inventory.used.values():
        for name in names:
            tensors[name].copy_(checkpoint.tensor(name))
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))
