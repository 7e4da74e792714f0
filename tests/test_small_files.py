"""Small files are read only if they are regular, and only as far as their limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sda_daemon.small_files import check_regular, is_deeper_than, read_small_file
from tests.neighbours import LARGE, NO_FILES, NOT_REGULAR, make_socket

LIMIT = 1000
OTHERS = NO_FILES | {"socket": (make_socket, NOT_REGULAR)}


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", OTHERS | LARGE)
def test_b46_what_is_no_small_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """With a reason, in no time, and nothing stays open."""
    make, reason = (OTHERS | LARGE)[name]
    path = tmp_path / "neighbour"
    make(path)
    before, began = count_descriptors(), time.monotonic()
    with pytest.raises(OSError, match=reason) as refused:
        read_small_file(path, LIMIT)
    assert refused.value.filename == str(path)
    assert time.monotonic() - began < 1.0
    assert count_descriptors() == before


def test_b46_a_small_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    """Also through a link; one byte more is too large."""
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"x" * LIMIT)
    link.symlink_to(path)
    assert read_small_file(link, LIMIT) == b"x" * LIMIT
    path.write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(OSError, match="it is larger than"):
        read_small_file(link, LIMIT)
    with pytest.raises(FileNotFoundError):
        read_small_file(tmp_path / "nothing", LIMIT)


@pytest.mark.parametrize("name", OTHERS)
def test_b46_what_others_would_open_is_looked_at_first(tmp_path: Path, name: str) -> None:
    """Nothing, and a regular file, may be there."""
    make, reason = OTHERS[name]
    check_regular(tmp_path / "nothing")
    (tmp_path / "file").touch()
    check_regular(tmp_path / "file")
    make(tmp_path / "other")
    with pytest.raises(OSError, match=reason):
        check_regular(tmp_path / "other")


def test_b46_depth_is_told_without_recursion() -> None:
    """Of lists and dicts in each other, however deep; siblings do not add up."""
    value: object = 1
    for _ in range(100_000):
        value = [value]
    assert is_deeper_than(value, 100)
    assert not is_deeper_than({"a": [1] * 1000, "b": {"c": [[]]}}, 4)
    assert is_deeper_than({"a": [1] * 1000, "b": {"c": [[]]}}, 3)
    assert not is_deeper_than("text", 0)
