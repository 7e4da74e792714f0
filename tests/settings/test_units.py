"""Durations and sizes as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.settings.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("500ms", 0.5), ("5m", 300), ("1.5h", 5400), ("1h 30m", 5400), ("1d", 86_400), ("90", 90), (90, 90),
     (0.25, 0.25), (" 3 s ", 3), ("5min", 300)],
)  # fmt: skip
def test_a_duration_is_read(text: str | float, seconds: float) -> None:
    """Units may be combined; a bare number is seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "2 fortnights", "-2s", "2s!", None, True, [], math.inf, math.nan, "nan", "1e3s"]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """The message shows how one is written."""
    with pytest.raises(ValueError, match="2s, 500ms, 5m, 1h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500 * 10**6), ("2GiB", 2**31), ("1.5kB", 1500), ("4096", 4096), (7, 7), ("1m", 2**20)]
)
def test_a_size_is_read(text: str | int, size: int) -> None:
    """MB are 10^6, MiB are 2^20."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "2 fathoms", "-1", 1.5, None, True])
def test_what_is_no_size_is_refused(text: object) -> None:
    """The message shows how one is written."""
    with pytest.raises(ValueError, match="500MB, 2GiB"):
        parse_size(text)


@given(st.one_of(st.integers(0, 10**7).map(float), st.integers(0, 10**6).map(lambda ms: ms / 1000)))
def test_a_written_duration_reads_as_the_same(seconds: float) -> None:
    """What `config show` prints can be put into a config."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@given(st.integers(0, 2**60))
def test_a_written_size_reads_as_the_same(size: int) -> None:
    """What `config show` prints can be put into a config."""
    assert parse_size(format_size(size)) == size
