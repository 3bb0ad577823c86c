"""A stage of training: an optimiser with a schedule that continues where it was stopped."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...runtime.bundle.files import atomic_path
from ...runtime.errors import BadInput

__all__ = ["Stage"]

LOG = logging.getLogger(__name__)
WARM_UP = 0.05
LAST_RATE = 0.02
CLIP = 1.0
SAVE_SECONDS = 120
LOG_SECONDS = 20
MODULES, OPTIMISER = "modules.", "optimiser."


@dataclass(frozen=True)
class Stage:
    """Steps of AdamW with a warm-up and a cosine.

    Attributes:
        name: names the file that keeps the state.
        steps: how many.
        rate: highest learning rate.
        folder: where the state is kept.
        origin: seed and data; a state of another origin is not continued.
        decay: weight decay.
    """

    name: str
    steps: int
    rate: float
    folder: Path
    origin: str
    decay: float = 0.02

    def run(
        self, modules: nn.ModuleDict, trained: Iterable[nn.Parameter], step: Callable[[int], dict[str, Tensor]]
    ) -> None:
        """Train, from the beginning or from where a stopped run left its state.

        Args:
            modules: whose state is kept, parameters that do not train included.
            trained: parameters that train.
            step: from the number of a step to named terms, of which those named `loss…` are summed and minimised; must
                depend on nothing but the number and the modules.
        """
        parameters = list(trained)
        optimiser = torch.optim.AdamW(parameters, self.rate, betas=(0.9, 0.98), weight_decay=self.decay)
        first = self._resume(modules, optimiser)
        started = saved = logged = time.monotonic()
        spent = time.process_time()
        means: dict[str, float] = {}
        modules.train()
        for number in range(first, self.steps):
            terms = step(number)
            loss = torch.stack([term for name, term in terms.items() if name.startswith("loss")]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP)
            for group in optimiser.param_groups:
                group["lr"] = self.rate * self.factor(number)
            optimiser.step()
            for name, term in terms.items():
                value = float(term.detach())
                means[name] = 0.98 * means.get(name, value) + 0.02 * value
            now = time.monotonic()
            if now - logged > LOG_SECONDS:
                logged = now
                shown = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
                LOG.info("%s: step %d of %d, %s", self.name, number + 1, self.steps, shown)
            if now - saved > SAVE_SECONDS or number + 1 == self.steps:
                saved = now
                self._save(modules, optimiser, number + 1)
        minutes, spent = (time.monotonic() - started) / 60, (time.process_time() - spent) / 60
        done = self.steps - first
        LOG.info("%s: %d steps took %.1f minutes, %.1f CPU-minutes", self.name, done, minutes, spent)
        modules.eval()

    def factor(self, step: int) -> float:
        """Learning rate at a step over the highest."""
        warm = max(1, int(WARM_UP * self.steps))
        if step < warm:
            return (step + 1) / warm
        turn = math.cos(math.pi * (step - warm) / max(1, self.steps - warm))
        return LAST_RATE + (1 - LAST_RATE) * (1 + turn) / 2

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    def _save(self, modules: nn.ModuleDict, optimiser: torch.optim.Optimizer, done: int) -> None:
        named = {f"{MODULES}{name}": tensor for name, tensor in modules.state_dict().items()}
        for number, entries in optimiser.state_dict()["state"].items():
            named |= {f"{OPTIMISER}{number}.{key}": tensor for key, tensor in entries.items()}
        # copies, since tied weights share their memory
        tensors = {name: tensor.clone().contiguous() for name, tensor in named.items()}
        about = {"done": str(done), "steps": str(self.steps), "origin": self.origin}
        with atomic_path(self._file) as temporary:
            save_file(tensors, temporary, about)

    def _resume(self, modules: nn.ModuleDict, optimiser: torch.optim.Optimizer) -> int:
        """Steps already done; raises BadInput when they are of another run."""
        if not self._file.exists():
            return 0
        try:
            with safe_open(self._file, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{self._file}: cannot be read ({error}); delete it to begin the stage again") from None
        if about.get("steps") != str(self.steps):
            raise BadInput(
                f"{self._file}: belongs to a run of {about.get('steps')} steps, this has {self.steps}; "
                "give another --out"
            )
        if about.get("origin") != self.origin:
            raise BadInput(f"{self._file}: belongs to a run with another --seed or --rea; give another --out")
        modules.load_state_dict(below(tensors, MODULES))
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in below(tensors, OPTIMISER).items():
            number, _, key = name.partition(".")
            entries.setdefault(int(number), {})[key] = tensor
        optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
        LOG.info("%s: continues after step %s", self.name, about["done"])
        return int(about["done"])


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, by the rest of the name."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
