"""Values of unknown origin as a person, and as a program, gets to see them."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.plain_json import LongNumber, json_bytes, presentable, read_json
from sda_daemon.wording import LONGEST_QUOTE, and_more, clean, listed, quoted, real, shortened, text_of, well_formed
from tests.odd_texts import ODD_TEXTS

LONG = st.integers(4301, 6000).map(lambda digits: 10**digits)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ODD_TEXTS | st.binary() | LONG,
    lambda inner: st.lists(inner) | st.dictionaries(ODD_TEXTS | st.integers() | LONG, inner),
    max_leaves=15,
)


@given(ODD_TEXTS)
def test_clean_text_is_one_visible_line(text: str) -> None:
    """Nothing that steers a terminal, nothing that UTF-8 cannot express; what is visible stays as it is."""
    shown = clean(text)
    assert len(shown) == len(text)
    shown.encode("utf-8", "strict")
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    assert all(old == new for old, new in zip(text, shown, strict=True) if old.isprintable())


@given(ANYTHING)
def test_any_value_can_be_quoted(value: Any) -> None:
    """In one bounded line, whatever it is."""
    text = quoted(value)
    assert len(text) <= 400
    assert text.isprintable() or clean(text) == text
    text.encode("utf-8", "strict")
    clean(text_of(value)).encode("utf-8", "strict")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "'x'"),
        ("it's", '"it\'s"'),
        ("\x1b[2J\ud800", "'\\x1b[2J\\ud800'"),
        ("a" * 100, f"'{'a' * 79}…'"),
        pytest.param(10**5000, "<number of some 5001 digits>", id="endless"),
        ([1, 2, 3, 4, 5], "[1, 2, 3, 4, ...]"),
        (None, "None"),
        (math.nan, "nan"),
    ],
)
def test_quotes(value: Any, expected: str) -> None:
    """As Python writes them, shortened."""
    assert quoted(value) == expected


def test_derived_values_are_quoted_as_what_they_are() -> None:
    """Pairs of pairs of pairs: written out they would fill the memory. Nor is a large dict put in order first."""

    class Pair(tuple[Any, ...]):
        pass

    class Text(str):
        pass

    pair = Pair((1, Text("a")))
    for _ in range(20):
        pair = Pair((pair, pair))
    assert quoted(pair) == "(((...), (...)), ((...), (...)))"
    assert quoted({pair: [pair] * 9}) == "{((...), (...)): [(...), (...), (...), (...), ...]}"
    assert quoted(Text("x" * 500)) == quoted("x" * 500)
    assert quoted(b"x" * 500) == "b'" + "x" * (LONGEST_QUOTE - 3) + "…"
    assert quoted(dict.fromkeys([3, "b", 1, None, 2])) == "{3: None, 'b': None, 1: None, None: None, ...}"
    assert quoted([{}, {1: {2: 3}}, True]) == "[{}, {1: {...}}, True]"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (True, 1.0),
        (2.5, 2.5),
        ("1", None),
        (None, None),
        pytest.param(10**400, math.inf, id="huge"),
        pytest.param(-(10**5000), -math.inf, id="endless"),
    ],
)
def test_numbers(value: Any, expected: float | None) -> None:
    """A number beyond all floats is infinite, and what is none is None."""
    assert real(value) == expected
    assert math.isnan(real(math.nan) or 0.0)


def test_lists() -> None:
    """As many as are asked for, then the number of the rest, and how to see it."""
    assert listed(["a", "b"], "x", 2) == ["a", "b"]
    assert listed(["a", "b", "c"], "do this", 2) == ["a", "b", "  and 1 more: do this"]
    assert listed(["a", "b", "c"], most=0, indent="") == ["and 3 more"]
    assert len(listed(["x"] * 1000)) == 21
    assert and_more(3) == "and 3 more"
    assert (shortened("abcd", 4), shortened("abcde", 4)) == ("abcd", "abc…")
    assert well_formed("a\ud800\U0001f3b5") == "a\ufffd\U0001f3b5"


# --- JSON -----------------------------------------------------------------------------------------


def refuse(constant: str) -> Any:
    """Python's json reads what no other program does, unless it is told not to."""
    raise ValueError(constant)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ODD_TEXTS | LONG,
    lambda inner: st.lists(inner) | st.dictionaries(ODD_TEXTS | st.integers() | LONG | st.floats(), inner),
    max_leaves=15,
)


@given(JSON_VALUES)
def test_what_goes_out_is_valid(value: Any) -> None:
    """Strict UTF-8, no NaN, no Infinity, no number beyond floats; what any program can read is what it was."""
    document = json.loads(json_bytes(value).decode("utf-8", "strict"), parse_constant=refuse)
    assert document == json.loads(json.dumps(presentable(value)))


SOUND_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(SOUND_VALUES)
def test_what_is_sound_goes_out_as_it_is(value: Any) -> None:
    """Nothing is replaced that need not be."""
    assert json.loads(json_bytes(value)) == value


def test_long_numbers_come_in() -> None:
    """Where Python refuses the whole document, one number becomes its text, and the rest is read."""
    digits = "7" * 5000
    raw = f'{{"a": {digits}, "b": [-{digits}], "c": 5, "d": "{digits}"}}'
    with pytest.raises(ValueError, match="Exceeds the limit"):
        json.loads(raw)
    found = read_json(raw)
    assert (type(found["a"]), found["a"], found["b"], found["c"]) == (LongNumber, digits, [f"-{digits}"], 5)
    assert not isinstance(found["d"], LongNumber)
    with pytest.raises(json.JSONDecodeError):
        read_json('{"a": ' + digits)
    with pytest.raises(UnicodeDecodeError):
        read_json(b'{"a": "\xff"}')
