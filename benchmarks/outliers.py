"""The small ST-LLM with loud channels in what it sees, as large models have them: constructed, to test quantisation.

    python -m stllm_edge.benchmarks.outliers FOLDER

Every video token gets a constant in a few channels, many times as large as embeddings are otherwise. Text has nothing
there, so an importance matrix from text alone knows nothing of them. Its answers mean nothing; its arithmetic is a
model's.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from .checkpoints import TRAINED
from .folders import make_new_folder

__all__ = ["add_outliers"]

VIDEO = ("model.mm_projector.2.bias", "model.image_newline")
CHANNELS, LOUD = 6, 2.0
SEED = 0


def add_outliers(folder: Path, channels: int = CHANNELS, loud: float = LOUD) -> Path:
    """Write the model into a new folder.

    Args:
        folder: where.
        channels: how many are loud, the same in all tokens.
        loud: what is added to them; other values of an embedding have a root mean square of 0.08.

    Raises:
        BadInput: the folder holds something, or cannot be made.
    """
    make_new_folder(folder)
    shutil.copytree(TRAINED, folder, dirs_exist_ok=True)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    generator = np.random.default_rng(SEED)
    chosen = generator.choice(tensors[VIDEO[0]].numel(), channels, replace=False)
    signs = generator.choice([-1.0, 1.0], channels)
    for name in VIDEO:
        values = tensors[name].float().numpy()
        values[chosen] += loud * signs
        tensors[name].copy_(tensors[name].new_tensor(values))
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


if __name__ == "__main__":
    add_outliers(Path(sys.argv[1]))
