"""Parts of the model as transformers implements them: what bundles are compared with.

Sizes and constants are transformers' own reading of `config.json`, so that a misreading of ours shows.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...runtime.bundle.geometry import AlignerGeometry
from ...runtime.errors import BadInput
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.sizes import DELETED_VISION_LAYERS, PUBLIC_TOWERS, TOWER

__all__ = ["Qformer", "Tower", "fill", "qwen2", "qwen2_config"]

OF_THE_WHOLE = ("model_type", "architectures", "torch_dtype", "dtype")


class Tower(nn.Module):
    """SigLIP without its deleted layer and its last norm: [T, 3, S, S] pixel values to [T, g*g, width]."""

    def __init__(self, checkpoint: Checkpoint):
        """Read the sizes and the weights; raises BadInput where the two do not fit."""
        from transformers import SiglipVisionConfig, SiglipVisionModel

        super().__init__()
        name = str(checkpoint.config.get("mm_vision_tower", ""))
        found = checkpoint.find(f"{name}/config.json")
        config = (
            SiglipVisionConfig.from_pretrained(found.parent) if found else SiglipVisionConfig(**PUBLIC_TOWERS[name])
        )
        config.vision_use_head = False
        with torch.device("meta"):
            model: Any = SiglipVisionModel(config).eval()
        inner = getattr(model, "vision_model", model)
        del inner.encoder.layers[-DELETED_VISION_LAYERS:]
        inner.embeddings.position_ids = torch.arange(inner.embeddings.num_positions)[None]
        self.embeddings, self.encoder = inner.embeddings, inner.encoder
        fill(self, checkpoint.tensor, TOWER)

    def forward(self, frames: Tensor) -> Tensor:
        return self.encoder(inputs_embeds=self.embeddings(frames)).last_hidden_state


class Qformer(nn.Module):
    """InstructBLIP's Q-Former fed with query embeddings alone, [M, width] rows against points [N, width']."""

    def __init__(self, checkpoint: Checkpoint, geometry: AlignerGeometry):
        """Read the weights; the sizes are those of the tensors, since no file states them."""
        from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

        super().__init__()
        config = InstructBlipQFormerConfig(
            hidden_size=geometry.width,
            num_hidden_layers=geometry.layers,
            num_attention_heads=geometry.heads,
            intermediate_size=geometry.ffn,
            encoder_hidden_size=geometry.point_features,
            cross_attention_frequency=frequency(geometry),
            vocab_size=1,
            max_position_embeddings=1,
        )
        with torch.device("meta"):
            self.model: Any = InstructBlipQFormerModel(config).eval()
        del self.model.embeddings.word_embeddings, self.model.embeddings.position_embeddings
        for layer in self.model.encoder.layer:
            # what only words go through
            del layer.intermediate, layer.output
        fill(self.model, checkpoint.tensor, "qformer.")

    @staticmethod
    def has_form(geometry: AlignerGeometry) -> bool:
        """Whether InstructBLIP has cross-attention in these layers: every so many from the first on."""
        return geometry.cross_layers == tuple(range(0, geometry.layers, frequency(geometry)))

    def forward(self, queries: Tensor, points: Tensor, mask: None = None) -> Tensor:
        """No mask: one question at a time."""
        given = {"query_embeds": queries[None], "encoder_hidden_states": points[None]}
        return self.model(input_ids=None, **given).last_hidden_state[0]


def frequency(geometry: AlignerGeometry) -> int:
    """Distance between layers with cross-attention."""
    return geometry.cross_layers[1] if len(geometry.cross_layers) > 1 else geometry.layers


def qwen2_config(checkpoint: Checkpoint) -> Any:
    """The language model's configuration as transformers reads it.

    Raises:
        BadInput: transformers refuses it.
    """
    from transformers import Qwen2Config

    # whose model it is and how it was stored is nothing to the language model in it
    stated = {key: value for key, value in checkpoint.config.items() if key not in OF_THE_WHOLE}
    rope = stated.get("rope_parameters")
    if isinstance(rope, dict) and not hasattr(Qwen2Config(), "rope_parameters"):
        # transformers 4 has these two keys in its place
        stated |= {"rope_theta": rope.get("rope_theta", 1e4), "rope_scaling": rope_scaling(rope)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Qwen2Config.from_dict(stated, attn_implementation="sdpa")
    except Exception as error:  # what it raises differs from version to version
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{checkpoint.path}: config.json: transformers refuses it as a Qwen2's ({reason})") from None


def rope_scaling(rope: dict[str, Any]) -> dict[str, Any] | None:
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    return None if scaling.get("rope_type", "default") == "default" else scaling


def qwen2(config: Any) -> Any:
    """A Qwen2 without weights whose layers are one and the same module, to be filled before each use."""
    from transformers import Qwen2Model

    with torch.device("meta"):
        model = Qwen2Model(config).eval()
    layer = model.layers[0].to_empty(device="cpu")
    model.layers = nn.ModuleList([layer] * config.num_hidden_layers)
    model.norm.to_empty(device="cpu")
    # the rotary frequencies are computed, not stored
    model.rotary_emb = type(model.rotary_emb)(config)
    return model


def fill(module: nn.Module, tensor: Callable[[str], Tensor], prefix: str = "") -> None:
    """Give a module without storage its tensors, in float32; `tensor` finds them by prefix and name.

    Raises:
        BadInput: a shape is not the one that the module has.
    """
    values = {}
    for name, target in module.state_dict().items():
        values[name] = tensor(prefix + name).float()
        found, expected = list(values[name].shape), list(target.shape)
        if found != expected:
            raise BadInput(f"{prefix}{name} is {found}, transformers reads {expected} from config.json")
    module.load_state_dict(values, assign=True)
    module.requires_grad_(False)
