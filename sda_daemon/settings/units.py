"""Durations and sizes as people write them: `2s`, `5m`, `500MB`, or a plain number."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES = {
    **{"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"k": 2**10, "m": 2**20, "g": 2**30, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")
_DURATION_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))
_SIZE_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def parse_duration(value: Any) -> float:
    """Return seconds of `90`, `"90"`, `"1.5m"` or `"1h 30m"`.

    Raises:
        ValueError: not a duration; the message shows how one is written.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
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
            factor = _BYTES[(match[2] or "b").lower()]
            return int(match[1]) * factor if match[1].isdecimal() else int(float(match[1]) * factor)
    raise ValueError("write a size such as 500MB, 2GiB or a number of bytes")


def format_duration(seconds: float) -> str:
    """Write a duration as people do: `90.0` is `90s`, `300.0` is `5m`, `0.5` is `500ms`."""
    if 0 < seconds < 1 and (seconds * 1000).is_integer():
        return f"{seconds * 1000:g}ms"
    for size, unit in _DURATION_UNITS:
        if seconds >= size and (seconds / size).is_integer():
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


def format_size(size_bytes: int) -> str:
    """Write a size as people do: `17179869184` is `16GiB`, `500000000` is `500MB`."""
    for size, unit in _SIZE_UNITS:
        if size_bytes >= size and size_bytes % size == 0:
            return f"{size_bytes // size}{unit}"
    return str(size_bytes)


class _Unit:
    """A mark by which settings that have a unit are found; `write` is how a value of it is written."""

    def __init__(self, write: Any) -> None:
        self.write = write


def _with_unit(examples: list[str]) -> WithJsonSchema:
    return WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\s*[\d.]"}], "examples": examples}
    )


Duration = Annotated[float, BeforeValidator(parse_duration), _Unit(format_duration), _with_unit(["2s", "5m", "1h"])]
"""Seconds."""
Size = Annotated[int, BeforeValidator(parse_size), _Unit(format_size), _with_unit(["500MB", "2GiB"])]
"""Bytes."""


def unit_of(metadata: Any) -> _Unit | None:
    """Return the unit among the annotations of a setting."""
    return next((item for item in metadata if isinstance(item, _Unit)), None)
