"""Curves drawn with characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.cli.chart import draw_curves

NUMBERS = st.floats(-1e9, 1e9)
CURVES = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.lists(st.tuples(st.integers(0, 500).map(float), NUMBERS), max_size=30)
)


def test_a_falling_line() -> None:
    """It begins at the top left and ends at the bottom right; axes carry the ends."""
    lines = draw_curves({"loss": [(0.0, 2.0), (10.0, 1.0)]}, width=40, height=5)
    assert lines[0].startswith("   2│•")
    assert lines[4].startswith("   1│")
    assert lines[4].endswith("•")
    assert lines[6].split() == ["0", "10"]
    assert lines[7].strip() == "• loss"


def test_wide_ranges_are_logarithmic_and_say_so() -> None:
    """A loss that falls from 1000 to 1 is not a flat line with a peak."""
    lines = draw_curves({"loss": [(0.0, 1000.0), (3.0, 1.0)]}, width=60, height=9)
    assert "logarithmic" in lines[-1]
    assert lines[4].strip().startswith("31.6│")


def test_ascii_terminals_get_ascii() -> None:
    """Nothing beyond the 128 characters."""
    assert "".join(draw_curves({"a": [(0.0, 1.0), (1.0, 2.0)]}, 40, ascii_only=True)).isascii()


@given(CURVES.map(lambda curves: {name: sorted(points) for name, points in curves.items()}), st.integers(0, 130))
def test_any_curves_fit(curves: dict[str, list[tuple[float, float]]], width: int) -> None:
    """No line is wider than asked for, but for the legend, whatever the values."""
    lines = draw_curves(curves, width)
    assert all(len(line) <= width for line in lines[:-1])
