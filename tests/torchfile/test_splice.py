"""Replacing one value inside a pickle and nothing else."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.torchfile.splice import encode_plain, replace_value

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_encoded_values_are_what_they_were(value: Any) -> None:
    """Python's own unpickler reads back what was written."""
    assert pickle.loads(b"\x80\x02" + encode_plain(value) + b".") == value


@given(
    st.dictionaries(st.text(), PLAIN, max_size=5),
    st.dictionaries(st.text(), PLAIN),
    PLAIN,
    st.dictionaries(st.text(), PLAIN),
)
def test_only_the_one_value_changes(
    before: dict[str, Any], old: dict[str, Any], after: Any, new: dict[str, Any]
) -> None:
    """Whatever stands before and after it, texts shared with it included, loads as it did."""
    shared = list(old)
    content = {**before, "metadata": old, "later": after, "shared texts": shared, "again": dict.fromkeys(old, 1)}
    data = pickle.dumps(content, protocol=2)
    changed = pickle.loads(replace_value(data, "metadata", new))
    expected = {**content, "metadata": new}
    assert changed == expected
    assert list(changed) == list(expected)


def test_twice_is_as_good_as_once() -> None:
    """The result can be edited again, and does not grow."""
    data = pickle.dumps({"a": "x" * 10, "metadata": {"name": "x" * 10}, "z": ["x" * 10]}, protocol=2)
    once = replace_value(data, "metadata", {"name": "one"})
    twice = replace_value(replace_value(once, "metadata", {"name": "something longer"}), "metadata", {"name": "one"})
    assert once == twice


def test_the_old_value_is_gone() -> None:
    """What someone took out of a description is not in the file any more."""
    data = pickle.dumps({"metadata": {"description": "a secret"}, "z": 1}, protocol=2)
    assert b"a secret" not in replace_value(data, "metadata", {"description": ""})


def test_classes_and_their_state_stay() -> None:
    """Operations that make objects are copied, never run."""
    state = OrderedDict(weights=bytearray(b"123"))
    data = pickle.dumps({"state": state, "metadata": {}, "other": {1, 2}}, protocol=2)
    changed = pickle.loads(replace_value(data, "metadata", {"name": "x"}))
    assert changed == {"state": state, "metadata": {"name": "x"}, "other": {1, 2}}


@pytest.mark.parametrize(
    ("content", "protocol", "reason"),
    [
        ({"other": 1}, 2, "it has no 'metadata'"),
        (["metadata", {}], 2, "plain dict"),
        ({"metadata": {}}, 4, "not written the way torch does it"),
    ],
)
def test_what_is_not_understood_is_refused(content: Any, protocol: int, reason: str) -> None:
    """Better no edit than a wrong one."""
    with pytest.raises(ValueError, match=reason):
        replace_value(pickle.dumps(content, protocol=protocol), "metadata", {})


def test_a_shared_container_is_refused() -> None:
    """A list that another part of the file refers to cannot be taken out without changing that part."""
    tags = ["x"]
    data = pickle.dumps({"metadata": {"tags": tags}, "z": tags}, protocol=2)
    with pytest.raises(ValueError, match="shares a value"):
        replace_value(data, "metadata", {})


@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    """Nothing but ValueError comes of bytes that are no pickle."""
    with pytest.raises(ValueError, match=r"."):
        replace_value(b"\x80\x02" + junk, "metadata", {})
