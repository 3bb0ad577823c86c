"""Answers as plain text: one form for all ways to write the same words."""

import re
import unicodedata

__all__ = ["affirmed", "digits", "normalise", "plain", "words"]

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBERS = {word: value for value, word in enumerate(ONES + TEENS)} | {
    word: 10 * value for value, word in enumerate(TENS, 2)
}
TENS_AND_ONES = re.compile(rf"\b({'|'.join(TENS)})[ -]({'|'.join(ONES[1:])})\b")
NUMBER = re.compile(rf"\b({'|'.join(NUMBERS)})\b")
QUOTED = re.compile(r"([`'\"])([^`'\"]*)\1")
NARRATION = re.compile(r"`[^`]*`|(?<!\w)'[^']+'(?!\w)")
ARTICLE = re.compile(r"\b(?:a|an|the)\b")
APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
PUNCTUATION = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|[^\w\s.,]|_")
WORD = re.compile(r"\w+(?:'\w+)?")
# a negation reaches to the next comma, full stop or "but"; a point or comma within a number ends nothing
NEGATED = re.compile(
    r"(?:\b(?:not|cannot|no longer|never|neither|nor|without|instead of|rather than)|n't)\b.*?"
    r"(?=\bbut\b|[;:!?]|[.,](?!\d)|$)",
    re.DOTALL,
)


def normalise(text: str) -> str:
    """Text without case, punctuation, articles and surplus space; numbers as digits."""
    bare = PUNCTUATION.sub(" ", APOSTROPHE.sub("", digits(lowered(text))))
    return " ".join(ARTICLE.sub(" ", bare).split())


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return WORD.findall(lowered(text))


def plain(text: str) -> str:
    """Lower-case text without quoted actions: REA quotes narrations (`turn on left hob`), which answer nothing."""
    bare = lowered(text).strip()
    whole = QUOTED.fullmatch(bare)
    return " ".join(NARRATION.sub(" ", whole[2] if whole else bare).split())


def affirmed(text: str) -> str:
    """What plain text says is so: "not left but right" becomes "but right"."""
    return NEGATED.sub(" ", text)


def digits(text: str) -> str:
    """Lower-case text with number words up to ninety-nine as digits."""
    # pairs first, or twenty-five would become 20-5
    text = TENS_AND_ONES.sub(lambda found: str(NUMBERS[found[1]] + NUMBERS[found[2]]), text)
    return NUMBER.sub(lambda found: str(NUMBERS[found[1]]), text)


def lowered(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'").lower()
