"""A checkpoint's configuration and the headers of its safetensors files: names and shapes, without PyTorch."""

import math
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ...runtime.bundle.geometry import Geometry
from ...runtime.errors import BadInput
from .files import read_json, reading
from .sizes import TOWER, UNUSED, read_geometry

__all__ = ["Headers"]

ADAPTER = "adapter_config.json"
BUNDLE_INSTEAD = "export it, and give the bundle with --bundle"
# what the tower's projector is made of, and the encoders of points and rays
PARTS = {
    "vision": re.compile(r"model\.(vision_tower|mm_projector|image_newline)"),
    "points": re.compile(r"pcd_encoder\."),
    "aligner": re.compile(r"qformer|latent_query|pcd_ray_encoder|img_ray_encoder|img_encoder_to|text_embed_to"),
}


class Headers:
    """What stands at the beginning of a checkpoint's files.

    Attributes:
        path: the checkpoint's folder.
        config: its `config.json`.
    """

    def __init__(self, path: Path):
        """Read the headers.

        Raises:
            BadInput: a file is missing or damaged, or its names cannot be read without PyTorch.
        """
        self.path = path
        if not path.is_dir():
            raise BadInput(f"checkpoint {path}: not a directory; expected the folder that the trainer saved")
        if (path / ADAPTER).is_file():
            raise BadInput(f"{path}: a LoRA adapter, whose base has the sizes; {BUNDLE_INSTEAD}")
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise BadInput(f"{path}: no safetensors files, and others are read by PyTorch alone; {BUNDLE_INSTEAD}")
        if (config := self.find("config.json")) is None:
            raise BadInput(f"{path}: config.json is missing")
        self.config: dict[str, Any] = read_json(config)
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            with reading(file), safe_open(file, framework="numpy") as stored:
                self._shapes |= {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def names(self) -> list[str]:
        """All tensor names, sorted."""
        return sorted(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; raises BadInput when there is none of this name."""
        if name not in self._shapes:
            raise BadInput(f"{self.path}: tensor {name} is missing")
        return self._shapes[name]

    def find(self, name: str) -> Path | None:
        """A file of the checkpoint; None if absent."""
        return self.path / name if (self.path / name).is_file() else None

    def geometry(self) -> Geometry:
        """Sizes of the model; raises BadInput where they cannot be read.

        A stored output matrix counts as one of its own: whether it is the embedding matrix, its values would tell.
        """
        tied = self.config.get("tie_word_embeddings", False) is True and "lm_head.weight" not in self
        return read_geometry(self, tied=tied)

    def parameters(self, geometry: Geometry) -> dict[str, int]:
        """Numbers that each encoder reads: vision, points and aligner."""
        deleted = f"{TOWER}encoder.layers.{geometry.vision.layers}."
        used = [name for name in self._shapes if not UNUSED.fullmatch(name) and not name.startswith(deleted)]
        return {
            part: sum(math.prod(self._shapes[name]) for name in used if pattern.match(name))
            for part, pattern in PARTS.items()
        }
