"""Which products stay float32 so that an encoder as a whole keeps its gate: by what each does to the output, measured.

Products are judged one by one before, but a hundred small errors add up. Where they add up to too much, groups of
products are put into INT8 alone, and those that cost most for their size stay float32.
"""

import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..comparison import relative
from ..onnx.costs import run
from .gates import gate
from .numerics import quantised
from .products import INT8, Choice, spread
from .recipe import Recipe

__all__ = ["Mix", "Pair"]

# held-out inputs are others than these, and cost up to a fifth more
MARGIN = 0.8
# ranked as one: the products of an attention, or of a feed-forward
GROUP = re.compile(r"(.*?(?:attention|feed_forward))\.|(.*)")
# inputs of an encoder, and its float32 output
Pair = tuple[Mapping[str, Any], Tensor]


class Mix:
    """An encoder with INT8 in some products of a recipe, in PyTorch."""

    def __init__(self, module: nn.Module, recipe: Recipe, *, static: bool):
        """Keep what is needed of both.

        Args:
            module: the encoder as it is traced.
            recipe: folds, and what each product becomes.
            static: whether ranges are set before, as TensorRT's are.
        """
        self.module, self.recipe, self.static = module, recipe, static
        self._factors = spread(recipe.folds)[0]
        self._chosen = [choice for choice in recipe.choices if not choice.stays(static)]

    def compute(self, inputs: Mapping[str, Any], choices: Collection[Choice] | None = None) -> Tensor:
        """The output with INT8 in these products, or in all that the recipe has."""
        taken = self._chosen if choices is None else choices
        weights = {choice.weight: choice.threshold if self.static else None for choice in taken}
        with torch.inference_mode(), quantised(self.module, weights, self._factors):
            return run(self.module, inputs)

    def within_gate(self, pairs: Sequence[Pair]) -> Recipe:
        """The recipe with the fewest weights in float32 that keep the whole within its gate.

        What was lowered before it is part of its inputs; where that alone is too much, nothing here mends it.
        """
        limit = MARGIN * gate(INT8)["rel_rms"]

        def error(choices: Collection[Choice], count: int | None = None) -> float:
            errors = [relative(self.compute(inputs, choices).numpy(), exact.numpy()) for inputs, exact in pairs[:count]]
            return max(value if value == value else float("inf") for value in errors)

        if error(self._chosen) <= limit or error(()) > limit:
            return self.recipe
        groups: dict[str, list[Choice]] = {}
        for choice in self._chosen:
            found = GROUP.match(choice.weight)
            assert found is not None
            groups.setdefault(found[1] or found[2], []).append(choice)
        # one input tells which is dearer
        before = error((), 1)
        costs = {name: self._cheaper(groups, name, lambda choices: error(choices, 1)) for name in list(groups)}
        effects = {name: max(cost**2 - before**2, 0) ** 0.5 for name, cost in costs.items()}
        weights = dict(self.module.named_parameters())
        sizes = {name: sum(weights[choice.weight].numel() for choice in choices) for name, choices in groups.items()}
        # errors add up as squares
        order = sorted(groups, key=lambda name: effects[name] ** 2 / sizes[name], reverse=True)

        def left(count: int) -> list[Choice]:
            return [choice for name in order[count:] for choice in groups[name]]

        count = bisect_left(range(len(order)), True, key=lambda kept: error(left(kept)) <= limit)
        changed = {choice.weight: choice for choice in left(0)}
        for name in order[:count]:
            reason = f"the whole would be off by more than {limit:.0%}, {name} alone by {effects[name]:.1%}"
            changed |= {choice.weight: choice.kept(self.static, reason) for choice in groups[name]}
        return replace(self.recipe, choices=tuple(changed.get(choice.weight, choice) for choice in self.recipe.choices))

    def _cheaper(self, groups: dict[str, list[Choice]], name: str, error: Any) -> float:
        """What a group costs alone; of the ranges that suit loud rows or usual ones, it takes those that cost less."""
        choices, cost = groups[name], error(groups[name])
        usual = [replace(choice, threshold=choice.usual, reason="usual rows") for choice in choices]
        if self.static and any(one.usual != one.threshold for one in choices) and (less := error(usual)) < cost:
            groups[name], cost = usual, less
        return float(cost)
