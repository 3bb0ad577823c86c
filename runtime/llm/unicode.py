"""Where libllama, the tokenizers library and Python know different versions of Unicode, and what is done about it.

The library composes characters by Unicode 9, and splits words by Unicode 16, whose letters and digits libllama does not
know. Found by asking both about every character.
"""

import re
import unicodedata

__all__ = ["WHITE", "normalise", "pieces"]

# Unicode's White_Space, which is what the tokenizers library strips; Python's own idea has four characters more
WHITE = "".join(
    map(chr, (*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000))
)
# marks that Unicode 10 to 16 added or gave another class, and the second half of U+11938: they neither move nor compose
LATER_MARKS = (
    "7FD 897-89F 8CA-8D3 9FE C3C D3B-D3C EBA ECE 1715 1ABF-1ACE 1DF6-1DFA A82C 10D24-10D27 10D69-10D6D 10EAB-10EAC "
    "10EFC-10EFF 10F46-10F50 10F82-10F85 11070 1133B 113C2 113C5 113C7-113C9 113CE-113D0 113E1-113E2 1145E 11839-1183A "
    "11930 1193D-1193E 11943 119E0 11A34 11A47 11A99 11D42 11D44-11D45 11D97 11F41-11F42 1611E-1612F 16D63 16D67-16D6A "
    "16FF0-16FF1 1E08F 1E130-1E136 1E2AE 1E2EC-1E2EF 1E4EC-1E4EF 1E5EE-1E5EF"
)
LATER_LETTERS = (
    "1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D4A-10D65 10D6F-10D85 10EC2-10EC4 11380-11389 1138B 1138E 11390-113B5 "
    "113B7 113D1 113D3 11BC0-11BE0 13460-143FA 16100-1611D 16D40-16D6C 18CFF 1E5D0-1E5ED 1E5F0"
)
LATER_NUMBERS = "10D40-10D49 116D0-116E3 11BF0-11BF9 16130-16139 16D70-16D79 1CCF0-1CCF9 1E5F1-1E5FA"


def characters(ranges: str) -> str:
    """Ranges of hexadecimal code points as the inside of a regular expression's set."""
    ends = (part.split("-") for part in ranges.split())
    return "".join("-".join(chr(int(end, 16)) for end in pair) for pair in ends)


MARK = re.compile(f"([{characters(LATER_MARKS)}])")
LETTERS, NUMBERS = characters(LATER_LETTERS), characters(LATER_NUMBERS)
# a word ends behind its last letter, and a digit is a word, as is the last space before it
ENDS = re.compile(rf"(?<=[{LETTERS}])(?=[^\w{LETTERS}])|(?=[^\S\r\n]?[{NUMBERS}])|(?<=[{NUMBERS}])")


def normalise(text: str) -> str:
    """A text in the normal form NFC, as the tokenizers library has it."""
    return "".join(unicodedata.normalize("NFC", part) for part in MARK.split(text))


def pieces(text: str) -> list[str]:
    """A text cut where the tokenizers library ends a word and libllama might not."""
    return [text] if text.isascii() else [part for part in ENDS.split(text) if part]
