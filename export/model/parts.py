"""Parts of the model filled with a checkpoint's weights, one tensor at a time."""

from typing import Any

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import PREFIXES, Inventory, build

__all__ = ["load_part"]


def load_part(checkpoint: Checkpoint, inventory: Inventory, part: str) -> Any:
    """One part (vision, points, aligner or llm) in float32, in evaluation mode, without gradients."""
    # empty storage: initial weights would be drawn and replaced at once
    module: Any = build(inventory.geometry)[part].to_empty(device="cpu").eval().requires_grad_(False)
    used = set(inventory.used[part])
    for name, target in module.state_dict().items():
        if (stored := PREFIXES[part] + name) in used:
            target.copy_(checkpoint.tensor(stored))
    if part == "llm" and inventory.geometry.llm.tied:
        module.lm_head.weight = module.model["embed_tokens"].weight
    return module
