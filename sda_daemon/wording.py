"""Makes values of unknown origin fit to be shown: on one line, visible, and never longer than anyone would read. Pure.

Names, dates, numbers and paths come out of files that any program may have written. Nothing here raises for what
it is given.
"""

from __future__ import annotations

import math
import re
import reprlib
import unicodedata
from collections.abc import Sequence
from itertools import islice

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MOST_LINES = 20
"""Longest list that is shown to a person unasked."""
LONGEST_VALUE = 2_000
"""Most characters of one value, such as a description or a reason."""
LONGEST_QUOTE = 80
"""Most characters of a value inside a sentence."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_DIGITS_PER_BIT = math.log10(2)


def well_formed(text: str) -> str:
    """Return a text that UTF-8 can express: each lone surrogate (a byte of a file name, say) becomes U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub(REPLACEMENT, text)


def text_of(value: object) -> str:
    """Return a value as text; Python itself refuses to write whole numbers of more than 4,300 digits."""
    try:
        return str(value)
    except (ValueError, RecursionError):
        return _long_number(value) if isinstance(value, int) else f"<{type(value).__name__} that is too long to show>"


def _long_number(value: int) -> str:
    return f"<number of some {math.ceil(value.bit_length() * _DIGITS_PER_BIT)} digits>"


def clean(value: object, longest: int | None = None) -> str:
    """Return a value on one line, with control characters and lone surrogates replaced by something visible.

    Args:
        value: anything.
        longest: how many characters are shown of it; all of them without it.
    """
    text = value if isinstance(value, str) else text_of(value)
    if longest is not None:
        text = shortened(text, longest)
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char in "\n\r\t":
        return " "
    return REPLACEMENT if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char


def shortened(text: str, longest: int) -> str:
    """Return at most so many characters of a text; one that was cut ends with `…`."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


class _Quotes(reprlib.Repr):
    """Writes values as Python does, but bounded in every direction."""

    def repr_int(self, x: int, level: int) -> str:
        return shortened(text_of(x), self.maxlong)

    def repr_str(self, x: str, level: int) -> str:
        return repr(shortened(x, self.maxstring))

    def repr_bytes(self, x: bytes, level: int) -> str:
        return shortened(repr(x[: self.maxstring]), self.maxstring)

    def repr_dict(self, x: dict[object, object], level: int) -> str:
        if level <= 0 or not x:
            return "{...}" if x else "{}"
        first = [f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}" for key in islice(x, self.maxdict)]
        return f"{{{', '.join(first + ['...'] * (len(x) > self.maxdict))}}}"

    def repr_instance(self, x: object, level: int) -> str:
        """Write what is derived from a built-in type as that: Python's own would write all that is in it."""
        for kind in (int, str, bytes, tuple, list, dict, frozenset, set):
            if isinstance(x, kind) and not isinstance(x, bool):
                written: str = getattr(self, f"repr_{kind.__name__}")(x, level)
                return written
        return super().repr_instance(x, level)


_quotes = _Quotes()
_quotes.maxlevel, _quotes.maxlist, _quotes.maxtuple, _quotes.maxdict, _quotes.maxset = 2, 4, 4, 4, 4
_quotes.maxstring = _quotes.maxlong = _quotes.maxother = LONGEST_QUOTE


def quoted(value: object) -> str:
    """Return a value in quotes for a message: as Python writes it, shortened, without control characters."""
    return clean(_quotes.repr(value), 5 * LONGEST_QUOTE)


def real(value: object) -> float | None:
    """Return a number as a float, infinite where it is beyond all floats; None for what is not a number."""
    if not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def listed(lines: Sequence[str], how: str = "", most: int = MOST_LINES, indent: str = "  ") -> list[str]:
    """Return the first of many lines, and one that says how many more there are.

    Args:
        lines: all of them.
        how: what to type to see the rest; empty where there is no such thing.
        most: how many are shown.
        indent: before the last line.
    """
    if len(lines) <= most:
        return list(lines)
    return [*lines[:most], indent + and_more(len(lines) - most, how)]


def and_more(count: int, how: str = "") -> str:
    """Return the words for what is not shown: `and 12 more: sda-daemon status --all`."""
    return f"and {count} more" + (f": {how}" if how else "")
