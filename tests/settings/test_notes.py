"""`sda.yaml` files: found from the checkpoint's folder up to the watched one; broken ones are told of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sda_daemon.settings.notes import MAX_NOTES_BYTES, read_notes


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A path in `<tmp>/root/a/run/checkpoints`; the root is two folders below it."""
    path = tmp_path / "root" / "a" / "run" / "checkpoints" / "x.pt"
    path.parent.mkdir(parents=True)
    return path


def test_notes_come_from_above_downward(checkpoint: Path, tmp_path: Path) -> None:
    """The watched folder is the last one that is looked into."""
    root = tmp_path / "root"
    for folder, name in ((tmp_path, "outside"), (root, "root"), (root / "a", "a"), (checkpoint.parent, "own")):
        (folder / "sda.yaml").write_text(f"name: {name}\n")
    found, ignored = read_notes(checkpoint, root)
    assert [notes.overrides.name for notes in found] == ["root", "a", "own"]
    assert ignored == []
    only_own, _ = read_notes(checkpoint, None)
    assert [notes.overrides.name for notes in only_own] == ["own"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "sda.yaml: the file is empty"),
        (b"name: [", "this is not YAML"),
        (b"nmae: x\n", "sda.yaml:1:1: nmae: there is no such key (with the value 'x'); did you mean 'name'?"),
        (b"name: '{{ epcoh }}'\n", "there is no fact 'epcoh'; did you mean 'epoch'?"),
        (b"tags: field\n", "tags: 'field' must be a list; write ['field']"),
        (b"name: \xff\n", "it is not UTF-8 text"),
        (b"- name\n", "it must hold keys and values, but it is a list"),
        (b"a: &a [x]\nname: *a\n", "aliases (*name) are not possible here"),
        (b"name: x\nname: y\n", "this key is given twice, already in line 1"),
        (b"name: !!python/name:os.system x\n", "could not determine a constructor"),
        (b"#" * (MAX_NOTES_BYTES + 1), "it is larger than 64 kB"),
        (b"[" * 5000, "it is nested too deeply"),
        (b"name: '{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}'\n", "it does too much"),
    ],
)
def test_broken_notes_are_told_of_and_the_others_count(checkpoint: Path, content: bytes, reason: str) -> None:
    """Path and reason, with line and column where there are such."""
    root = checkpoint.parents[3]
    (root / "sda.yaml").write_text("dataset_name: good\n")
    broken = checkpoint.parent / "sda.yaml"
    broken.write_bytes(content)
    found, ignored = read_notes(checkpoint, root)
    assert [notes.overrides.dataset_name for notes in found] == ["good"]
    ((path, why),) = ignored
    assert path == str(broken)
    assert reason in why
    assert "\n" not in why


def test_what_is_no_file_is_not_waited_for(checkpoint: Path) -> None:
    """A pipe would never answer; a folder and a dangling link are no notes either."""
    place = checkpoint.parent / "sda.yaml"
    os.mkfifo(place)
    assert read_notes(checkpoint, None) == ([], [(str(place), "it cannot be used: it is no regular file")])
    place.unlink()
    place.symlink_to(checkpoint.parent / "nothing")
    assert read_notes(checkpoint, None) == ([], [])
    place.unlink()
    place.mkdir()
    found, ignored = read_notes(checkpoint, None)
    assert (found, len(ignored)) == ([], 1)
