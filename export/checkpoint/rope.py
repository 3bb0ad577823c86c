"""The base of rotary positions, in the places where transformers 4 and 5 state it (SPEC section 1)."""

import logging
from collections.abc import Mapping
from typing import Any

from ...runtime.errors import BadInput
from .configuration import ROPE_KEYS, positive

__all__ = ["read_rope_base"]

LOG = logging.getLogger(__name__)
# of transformers where no file states one
USUAL = 1e4


def read_rope_base(place: str, config: Mapping[str, Any]) -> float:
    """Base of the rotary frequencies, as transformers 5 reads it: from `rope_parameters`, or beside it.

    Args:
        place: the file's name in messages.
        config: its content.

    Raises:
        BadInput: positions are scaled, or the base is no positive number.
    """
    stated = {}
    given = {key: config[key] for key in ("rope_scaling", "rope_parameters") if config.get(key)}
    if len(given) > 1:
        raise BadInput(f"{place}: has both {' and '.join(given)}; remove the one that is old")
    for key, rope in given.items():
        if not isinstance(rope, dict):
            raise BadInput(f"{place}: {key} is {rope!r}, expected an object")
        ROPE_KEYS.check(f"{place}: {key}", rope)
        if "rope_theta" in rope:
            stated[f"{key}.rope_theta"] = positive(place, f"{key}.rope_theta", rope["rope_theta"])
    if "rope_theta" in config:
        stated["rope_theta"] = positive(place, "rope_theta", config["rope_theta"])
    if not stated:
        LOG.warning("%s has no rope_theta; %g is taken, as transformers does", place, USUAL)
        return USUAL
    (first, base), *others = stated.items()
    for other, value in others:
        if value != base:
            LOG.warning(
                "%s: %s is %g, %s %g; the former is taken, as transformers 5 does; remove the wrong one",
                *(place, first, base, other, value),
            )
    return base
