"""The filters of metadata templates beside Jinja2's own. Pure."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any


def slug(value: Any) -> str:
    """`Field Recordings (2024)` → `field-recordings-2024`."""
    plain = unicodedata.normalize("NFKD", str(value)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def words(value: Any) -> str:
    """`field-recordings_2024` → `field recordings 2024`."""
    return re.sub(r"[-_\s]+", " ", str(value)).strip()


def date(value: datetime, form: str = "%Y-%m-%d") -> str:
    """Write a datetime, by default as `2026-02-28`; the form is that of strftime."""
    return _moment(value).strftime(form)


def time_of_day(value: datetime, form: str = "%H:%M") -> str:
    """Write a datetime's time, by default as `23:59`."""
    return _moment(value).strftime(form)


def local(value: datetime) -> datetime:
    """Turn a datetime into this computer's time zone."""
    return _moment(value).astimezone()


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError(f"a datetime such as mtime or now is needed, not {value!r}")
    return value


def duration(value: Any) -> str:
    """Seconds as people say them: 4830 → `1 h 20 min`, 95 → `1 min 35 s`, 0.25 → `0.25 s`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not math.isfinite(seconds):
        return str(seconds)
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 60:
        return f"{sign}{seconds:.3g} s"
    whole = round(seconds)
    units = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    first = next(index for index, (size, _) in enumerate(units) if whole >= size)
    parts = []
    for size, unit in units[first : first + 2]:
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {unit}")
    return sign + " ".join(parts)


def significant(value: Any, digits: int = 3) -> str:
    """Round to so many significant digits: 0.034512 → `0.0345`, inf → `inf`."""
    number = float(value)
    if not math.isfinite(number) or number == 0:
        return f"{number:g}"
    places = digits - 1 - math.floor(math.log10(abs(number)))
    return f"{round(number, places):.{max(0, places)}f}"


def pad(value: Any, digits: int = 3) -> str:
    """A whole number with zeros in front: 7 → `007`; so no name is the beginning of another (`epoch 1`, `epoch 10`)."""
    number, width = int(value), min(int(digits), 20)
    return f"{number:0{width}d}"


FILTERS: dict[str, Callable[..., Any]] = {
    "slug": slug,
    "words": words,
    "date": date,
    "time": time_of_day,
    "local": local,
    "duration": duration,
    "significant": significant,
    "pad": pad,
}
"""Every filter of ours by its name in templates."""
