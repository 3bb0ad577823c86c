"""A recipe for a size: a type for each tensor, chosen by what types were measured to cost.

What a matrix loses is its group's answer to a loss of that size, measured on prompts, times what rounding changes at
its output. Bytes go where they save most; what comes out is measured against every fixed type near that size.
"""

import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ...runtime.console import Progress
from ...runtime.errors import BadInput
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.geometry import Inventory
from .matrix import Matrix
from .prompts import Prompt
from .quantiser import Plan
from .recipe import Recipe
from .sensitivity import Sensitivity
from .sizes import Step, frontier, padded, spend
from .types import EMBEDDING, EMBEDDING_TYPES, EXTREME, USUAL
from .writer import gguf_names, lossless, plans

__all__ = ["Fitting", "fitted"]

LOG = logging.getLogger(__name__)
# types that a matrix may get, and those that take an importance matrix
CHOICES = ("Q2_K", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0")
WITH_MATRIX = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")
TRAINED = ("TQ2_0", "TQ1_0", "Q1_0")
# with which a group's answer is measured: the first whose blocks divide the rows
PROBES = ("Q4_K", "Q4_0")
# runs of neighbouring layers whose answers are measured apart
DEPTHS = 4
BELOW = 0.01
# fixed types, of the sizes next to the one that is wanted
MOST_RIVALS = 3
# at least what is recorded of an importance matrix
MATRIX_BYTES = 1024
Types = dict[str, str]
Steps = dict[str, list[Step]]


def fitted(
    recipe: Recipe,
    checkpoint: Checkpoint,
    inventory: Inventory,
    prompts: Callable[[], Sequence[Prompt]],
    progress: Progress,
) -> Recipe:
    """The recipe that fills the size of another.

    Args:
        recipe: with a size; tensors that it gives a type keep it.
        checkpoint: where the weights are.
        inventory: names and sizes of the checkpoint.
        prompts: gives those on which losses are measured, once it is known that the size is possible.
        progress: where to report.

    Raises:
        BadInput: the size is too small, or the matrix is of another model.
    """
    used = inventory.used["llm"]
    names = gguf_names(used, inventory.geometry.llm)
    importance = {}
    if recipe.matrix is not None:
        columns = {new: checkpoint.shape(old)[1] for new, old in names.items() if len(checkpoint.shape(old)) > 1}
        importance = Matrix.read(recipe.matrix).weights(columns, recipe.matrix)
    with tempfile.TemporaryDirectory() as folder:
        found = plans(checkpoint, inventory, fixed_recipes(recipe), Path(folder))
    fitting = Fitting(recipe, found, lossless(checkpoint, used), frozenset(importance))
    fitting.require_possible()
    if fitting.all_plain is not None:
        return fitting.all_plain
    return fitting.run(Sensitivity(checkpoint, names, prompts(), importance, progress))


def fixed_recipes(recipe: Recipe) -> list[Recipe]:
    """Every type of a file that can be made, with the overrides and the matrix of a recipe."""
    kinds = [*USUAL, *(kind for kind in EXTREME if recipe.matrix is not None and kind not in TRAINED)]
    return [Recipe(kind, kind, recipe.tensors, recipe.matrix) for kind in kinds]


@dataclass(frozen=True)
class Fitting:
    """A model whose types are chosen.

    Attributes:
        recipe: with a size.
        plans: of all fixed types.
        plain: type without loss.
        important: matrices of which an importance matrix knows.
    """

    recipe: Recipe
    plans: Sequence[Plan]
    plain: str
    important: frozenset[str]

    def require_possible(self) -> None:
        """Raise BadInput where even the coarsest types take more."""
        least = self._bytes(
            {name: min(kinds, key=lambda kind: padded(self.shapes[name], kind)) for name, kinds in self.choices.items()}
        )
        if least > self.wanted:
            raise BadInput(
                f"--target-size {self.recipe.name}: is {self.wanted / 2**20:.3f}MiB, and this model takes at least "
                f"{least / 2**20:.3f}MiB; ask for more"
            )

    @cached_property
    def all_plain(self) -> Recipe | None:
        """The recipe without loss, of which nothing needs to be measured, where the size has room for it."""
        types = dict.fromkeys(self.choices, self.plain) | self.pinned
        if self._bytes(types) > self.wanted:
            return None
        LOG.warning(
            "%s: takes %.3f MB, without loss; there is nothing finer", *(self.recipe.name, self._bytes(types) / 1e6)
        )
        return self._recipe(max(self.plans, key=lambda plan: plan.size).recipe.type, types)

    def run(self, sensitivity: Sensitivity) -> Recipe:
        """Choose by what is measured."""
        steps = self._steps(sensitivity)
        rivals = sorted(
            (plan for plan in self.plans if self._bytes(matrices(plan)) <= self.wanted), key=lambda plan: plan.size
        )
        rivals = rivals[-MOST_RIVALS:]
        fixed = [matrices(plan) for plan in rivals]
        begins = [{name: found[0] for name, found in steps.items()}, *(self._begin(steps, types) for types in fixed)]
        mixes = [self._filled(steps, begin) for begin in begins]
        losses = sensitivity.divergences([*mixes, *fixed])
        tried = list(zip(losses, [*mixes, *fixed], strict=True))
        near = [(loss, types) for loss, types in tried if self._bytes(types) >= (1 - BELOW) * self.wanted]
        loss, chosen = min(near or tried[: len(mixes)], key=lambda found: found[0])
        beaten = {plan.recipe.type: other for plan, other in zip(rivals, losses[len(mixes) :], strict=True)}
        self._report(chosen, loss, beaten)
        smallest = min(self.plans, key=lambda plan: plan.size).recipe.type
        kind = min(beaten, key=beaten.__getitem__, default=smallest)
        return self._recipe(kind, chosen)

    def _recipe(self, kind: str, types: Types) -> Recipe:
        """With a type of the file, and of each matrix."""
        tensors = tuple((f"^{re.escape(name)}$", given) for name, given in types.items())
        return replace(self.recipe, type=kind, tensors=tensors, size=None)

    @property
    def wanted(self) -> int:
        """Bytes of the file."""
        assert self.recipe.size is not None
        return self.recipe.size

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all matrices."""
        return {tensor.name: tensor.shape for tensor in self.plans[0].tensors if len(tensor.shape) > 1}

    @cached_property
    def pinned(self) -> Types:
        """Types that the recipe itself gives."""
        return self.recipe.overrides(self.shapes)

    @cached_property
    def choices(self) -> dict[str, list[str]]:
        """Types that each other matrix may have: all of which a block divides its rows, and those of fixed types."""
        found = {}
        for name, shape in self.shapes.items():
            if name in self.pinned:
                continue
            kinds = (*CHOICES, *(WITH_MATRIX if name in self.important else ()), self.plain)
            if name == EMBEDDING:
                kinds = tuple(kind for kind in EMBEDDING_TYPES if kind in ("Q8_0", self.plain))
            fixed = (tensor.type for plan in self.plans for tensor in plan.tensors if tensor.name == name)
            found[name] = list(dict.fromkeys([*(kind for kind in kinds if divides(kind, shape[1])), *fixed]))
        return found

    def _steps(self, sensitivity: Sensitivity) -> Steps:
        """What each matrix may become, and what that costs."""
        errors = sensitivity.errors(self.choices)
        groups = list(self._groups())
        probes = [{name: probe(self.choices[name]) for name in group} for group in groups]
        found = {}
        for probed, loss in zip(probes, sensitivity.divergences(probes), strict=True):
            total = sum(errors[name][kind] for name, kind in probed.items())
            answer = loss / total if total else 0.0
            for name in probed:
                costs = errors[name].items()
                steps = [Step(kind, padded(self.shapes[name], kind), answer * error) for kind, error in costs]
                found[name] = frontier(steps)
        return found

    def _groups(self) -> Iterator[list[str]]:
        """Matrices of one class in neighbouring layers."""
        layers = 1 + max((layer_of(name) for name in self.shapes), default=0)
        groups: dict[tuple[str, int], list[str]] = {}
        for name in self.choices:
            depth = layer_of(name) * min(DEPTHS, layers) // layers
            groups.setdefault((re.sub(r"^blk\.\d+\.", "", name), depth), []).append(name)
        yield from groups.values()

    def _begin(self, steps: Steps, fixed: Types) -> dict[str, Step]:
        """Where a mix starts that is a fixed type with more: of each matrix, the finest step that is not larger."""
        found = {}
        for name, known in steps.items():
            most = padded(self.shapes[name], fixed[name])
            found[name] = [step for step in known if step.bytes <= most][-1]
        return found

    def _filled(self, steps: Steps, begin: Mapping[str, Step]) -> Types:
        """A mix that takes what there is room for."""
        return typed(spend(steps, begin, self.wanted - self._bytes(typed(begin)))) | self.pinned

    def _bytes(self, types: Types) -> int:
        """Of a file with these types."""
        plan = self.plans[0]
        vectors = sum(padded(tensor.shape, tensor.type) for tensor in plan.tensors if len(tensor.shape) == 1)
        chosen = types | self.pinned
        head = plan.head + (MATRIX_BYTES if self.recipe.matrix else 0)
        return head + vectors + sum(padded(shape, chosen[name]) for name, shape in self.shapes.items())

    def _report(self, chosen: Types, loss: float, beaten: Mapping[str, float]) -> None:
        size = self._bytes(chosen)
        fixed = ", ".join(f"{kind} {other:.2e}" for kind, other in beaten.items()) or "none is so small"
        LOG.info(
            "%s: %.3f MB, KL %.2e on the questions; fixed types: %s",
            *(self.recipe.name, size / 1e6, loss, fixed),
        )
        if size < (1 - BELOW) * self.wanted:
            LOG.warning("%s: takes %.3f MB; nothing finer fits, or there is none", self.recipe.name, size / 1e6)
        if better := [kind for kind, other in beaten.items() if other < loss]:
            LOG.warning("%s: %s is smaller and diverges less on these prompts", self.recipe.name, better[0])


def matrices(plan: Plan) -> Types:
    """Types of a plan's matrices."""
    return {tensor.name: tensor.type for tensor in plan.tensors if len(tensor.shape) > 1}


def typed(steps: Mapping[str, Step]) -> Types:
    return {name: step.type for name, step in steps.items()}


def divides(kind: str, columns: int) -> bool:
    """Whether rows are whole blocks of a type."""
    return columns % GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0] == 0


def probe(choices: Sequence[str]) -> str:
    """The type with which a matrix's answer is measured."""
    return next((kind for kind in PROBES if kind in choices), choices[0])


def layer_of(name: str) -> int:
    """Of a matrix; 0 for those of none."""
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else 0
