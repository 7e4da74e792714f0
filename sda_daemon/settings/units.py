"""Durations and sizes as people write them: `2s`, `5m`, `500MB`, or a plain number."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES = {
    **{"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"k": 2**10, "m": 2**20, "g": 2**30, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")


def parse_duration(value: Any) -> float:
    """Return seconds of `90`, `"90"`, `"1.5m"` or `"1h 30m"`.

    Raises:
        ValueError: not a duration; the message shows how one is written.

    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.strip():
        parts = [(float(number), unit) for number, unit in _NUMBER.findall(value)]
        units = [unit or "s" for _, unit in parts]
        if _NUMBER.sub("", value) == "" and all(unit in _SECONDS for unit in units):
            return sum(number * _SECONDS[unit] for (number, _), unit in zip(parts, units, strict=True))
    raise ValueError("write a duration such as 2s, 500ms, 5m, 1h or a number of seconds")


def parse_size(value: Any) -> int:
    """Return bytes of `4096`, `"500MB"` (10^6) or `"2GiB"` (2^30).

    Raises:
        ValueError: not a size; the message shows how one is written.

    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match is not None and (match[2] or "b").lower() in _BYTES:
            return int(float(match[1]) * _BYTES[(match[2] or "b").lower()])
    raise ValueError("write a size such as 500MB, 2GiB or a number of bytes")


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds."""
Size = Annotated[int, BeforeValidator(parse_size)]
"""Bytes."""
