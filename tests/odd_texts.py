"""Texts as they come out of files that anyone may have written."""

from __future__ import annotations

from hypothesis import strategies as st

_ODD = ["\ud800", "\udcff", "\udfff", "\0", "\n", "\t", "\x1b", "\x9b", "\u202e", "\u2028", "ß", "…", "\U0001f3b5"]


def _joined(characters: list[str]) -> str:
    """Join characters; two surrogates that make a pair become what they stand for, as JSON would have it."""
    return "".join(characters).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


ODD_TEXTS = st.lists(st.sampled_from(_ODD) | st.characters(exclude_categories=()), max_size=20).map(_joined)
"""Every code point, and often those that make trouble: lone surrogates, escapes, line ends, NUL."""
