"""A LoRA adapter of the language model as GGUF, which libllama applies to the model without it."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, Keys

from ...runtime.errors import BadInput
from ..checkpoint.checkpoint import Checkpoint
from .types import EMBEDDING

__all__ = ["split_adapter", "write_adapter"]


def split_adapter(checkpoint: Checkpoint, names: dict[str, str]) -> Checkpoint:
    """The checkpoint without its adapter's updates of the language model; what was trained whole stays in it.

    Args:
        checkpoint: with an adapter.
        names: the language model's tensors by their names in GGUF.

    Raises:
        BadInput: there are no such updates, or they are of a kind that libllama does not add.
    """
    updates = checkpoint.updates(names.values())
    if not updates:
        raise BadInput(f"--lora-as-adapter: {checkpoint.path} is no LoRA adapter of the language model; leave it out")
    if dora := [name for name, update in updates.items() if update.magnitude is not None]:
        raise BadInput(f"--lora-as-adapter: {dora[0]} was trained with DoRA, which libllama does not add; leave it out")
    if names[EMBEDDING] in updates:
        raise BadInput(f"--lora-as-adapter: {names[EMBEDDING]} is among its weights, whose rows are read; leave it out")
    return checkpoint.without(updates)


def write_adapter(path: Path, checkpoint: Checkpoint, names: dict[str, str]) -> None:
    """Write the updates of a checkpoint's adapter, their factors in float32 and their scales in the second of them."""
    updates = checkpoint.updates(names.values())
    writer = GGUFWriter(path, arch="qwen2")
    writer.add_type("adapter")
    writer.add_string(Keys.Adapter.TYPE, "lora")
    # with 0, libllama takes the product as it is: alphas and ranks may differ from weight to weight
    writer.add_float32(Keys.Adapter.LORA_ALPHA, 0.0)
    for new, old in sorted(names.items()):
        if (update := updates.get(old)) is not None:
            up = update.scale * update.up.float()
            writer.add_tensor(f"{new}.lora_a", np.ascontiguousarray(update.down.float().numpy()))
            writer.add_tensor(f"{new}.lora_b", np.ascontiguousarray(up.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
