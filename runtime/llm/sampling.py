"""The next token, chosen from logits."""

import numpy as np

__all__ = ["sample"]


def sample(logits: np.ndarray, temperature: float, generator: np.random.Generator) -> int:
    """The best token at temperature 0, else a draw from the softmax."""
    if temperature == 0:
        return int(logits.argmax())
    below_best = logits.astype(np.float64) - logits.max()
    # at a tiny temperature quotients overflow to minus infinity, whose weight is 0, as it should be
    with np.errstate(over="ignore"):
        weights = np.exp(np.where(below_best < 0, below_best / temperature, 0.0))
    return int(generator.choice(len(weights), p=weights / weights.sum()))
