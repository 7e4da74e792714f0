"""JSON as other programs write and read it. Pure.

What comes in may hold numbers of any length. What goes out is read by every program: valid UTF-8, and no number that
is infinite, not a number, or beyond what a float can hold.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from sda_daemon.wording import real, shortened, text_of, well_formed


class LongNumber(str):
    """A whole number of so many digits that Python does not read it: its text, as it stands in the file."""

    __slots__ = ()


def read_json(raw: str | bytes) -> Any:
    """Decode JSON; a whole number of more digits than Python reads becomes a `LongNumber`, and spoils nothing else.

    Raises:
        ValueError: not JSON.
        RecursionError: nested too deeply.
    """
    try:
        return json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        return json.loads(raw, parse_int=whole_number)


def whole_number(digits: str) -> int | LongNumber:
    """Return what the digits of a whole number stand for, themselves if there are more than Python reads."""
    return int(digits) if len(digits) <= sys.get_int_max_str_digits() else LongNumber(digits)


def presentable(value: Any, longest: int | None = None) -> Any:
    """Return a value that every program reads as JSON.

    Lone surrogates become U+FFFD, numbers that are infinite, not a number or beyond all floats become None.

    Args:
        value: made of what JSON has; anything else stays as it is.
        longest: most characters of each text; all without it.
    """
    if isinstance(value, str):
        return well_formed(value if longest is None else shortened(value, longest))
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if math.isfinite(real(value) or 0.0) else None
    if isinstance(value, dict):
        return {well_formed(text_of(key)): presentable(item, longest) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [presentable(item, longest) for item in value]
    return value


def json_bytes(value: Any) -> bytes:
    """Return a value as indented JSON in UTF-8."""
    return json.dumps(presentable(value), indent=2, ensure_ascii=False, allow_nan=False).encode()
