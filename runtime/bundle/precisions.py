"""Names of precisions: one number format for all encoders, or one for each."""

from ..errors import BadInput
from .manifest import ENCODERS

__all__ = ["FORMATS", "FP16", "FP32", "INT8", "canonical", "exactness", "formats_of"]

FORMATS = FP32, FP16, INT8 = ("fp32", "fp16", "int8")
# under the name `int8` the tower alone is INT8, which takes most of the time: the points' products are small, and the
# aligner's lose more in INT8 than they gain
MIXED = {INT8: {"points": FP32, "aligner": FP32}}


def formats_of(precision: str) -> dict[str, str]:
    """The number format of each encoder.

    Args:
        precision: a format for all, or `vision=int8,points=fp32`, where an encoder that is left out is fp32.

    Raises:
        BadInput: it is neither.
    """
    if "=" not in precision:
        require_known(precision, precision)
        return {name: MIXED.get(precision, {}).get(name, precision) for name in ENCODERS}
    chosen: dict[str, str] = {}
    for part in precision.split(","):
        name, _, form = (text.strip() for text in part.partition("="))
        if name not in ENCODERS or name in chosen:
            what = "named twice" if name in chosen else "unknown"
            raise BadInput(f"--precision {precision}: encoder {name!r} is {what}; known are {', '.join(ENCODERS)}")
        require_known(precision, form)
        chosen[name] = form
    return {name: chosen.get(name, FP32) for name in ENCODERS}


def canonical(precision: str) -> str:
    """The name under which a bundle holds a precision: that of a format where it is the same."""
    formats = formats_of(precision)
    same = [name for name in FORMATS if formats_of(name) == formats]
    return same[0] if same else ",".join(f"{name}={form}" for name, form in formats.items())


def exactness(precision: str) -> tuple[int, ...]:
    """Where a precision stands, the most exact first: by its coarsest format, then by how many encoders have it."""
    return tuple(sorted((FORMATS.index(form) for form in formats_of(precision).values()), reverse=True))


def require_known(precision: str, form: str) -> None:
    if form not in FORMATS:
        known = f"{', '.join(FORMATS)}, or a mix such as vision=int8,points=fp32"
        raise BadInput(f"--precision {precision}: unknown; known are {known}")
