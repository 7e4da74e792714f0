"""The filters beside Jinja2's own."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.templates.filters import date, duration, local, significant, slug, time_of_day, words


@pytest.mark.parametrize(
    ("text", "result"),
    [("Field Recordings (2024)", "field-recordings-2024"), ("Übung Ñ", "ubung-n"), ("--a__b--", "a-b"), ("音", "")],
)
def test_slug(text: str, result: str) -> None:
    """Small ASCII letters, digits, and single dashes between them."""
    assert slug(text) == result


def test_words() -> None:
    """Dashes and underscores become spaces."""
    assert words("field-recordings__2024 ") == "field recordings 2024"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4830, "1 h 20 min"), (95, "1 min 35 s"), (60, "1 min"), (59.9, "59.9 s"), (0.25, "0.25 s"), (0, "0 s"),
     (3600, "1 h"), (90_061, "1 d 1 h"), (-95, "-1 min 35 s"), (timedelta(minutes=2), "2 min"), (math.inf, "inf"),
     ("30", "30 s")],
)  # fmt: skip
def test_duration(seconds: object, text: str) -> None:
    """The two largest units that are not zero."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.034512, 3, "0.0345"), (34.903, 3, "34.9"), (12345, 2, "12000"), (0, 3, "0"), (math.inf, 3, "inf"),
     (-0.0012, 1, "-0.001"), (0.35, 3, "0.350"), (math.nan, 3, "nan")],
)  # fmt: skip
def test_significant(value: float, digits: int, text: str) -> None:
    """Losses are comparable at a glance."""
    assert significant(value, digits) == text


@given(st.floats(1e-6, 1e6), st.integers(1, 6))
def test_significant_is_near(value: float, digits: int) -> None:
    """Within half a unit of the last digit that is shown."""
    assert float(significant(value, digits)) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


def test_dates() -> None:
    """Of datetimes only; local time is another way to say the same moment."""
    moment = datetime(2026, 2, 28, 23, 59, tzinfo=UTC)
    assert date(moment) == "2026-02-28"
    assert date(moment, "%d.%m.") == "28.02."
    assert time_of_day(moment) == "23:59"
    assert local(moment) == moment
    with pytest.raises(TypeError, match="mtime or now"):
        date("2026-02-28")  # type: ignore[arg-type]
