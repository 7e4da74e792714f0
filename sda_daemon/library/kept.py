"""What other programs leave out of the index when they write it, remembered so that it can be put back.

A generation of the training application skips entries with a field that it does not know, knows no keys beside
`models`, and writes the whole index from its memory: what it has skipped is gone then. What this program found in the
index before lives in a small hidden file beside it. It is a memory: without it nothing can be put back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sda_daemon.access import Access
from sda_daemon.files import write_atomic
from sda_daemon.library.content import (
    Fields,
    ForeignKind,
    IndexContent,
    checked_fields,
    holds_stray_byte,
    null_fields,
)
from sda_daemon.library.members import split_object
from sda_daemon.models.formats import NEWEST_INDEX_VERSION, index_fields
from sda_daemon.small_files import read_small_file

KEPT_FILE_NAME = ".model_library.kept.json"
_VERSION = 1
_MAX_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class KeptEntry:
    """A foreign entry: its text, the file in the folder that it names, and whether that has ever been seen there."""

    text: str
    file: str = ""
    was_there: bool = False


@dataclass(frozen=True, slots=True)
class KeptFields:
    """What a model's entry has beyond the 16 fields, and the model's file."""

    fields: Fields
    file: str


@dataclass(slots=True)
class Kept:
    """What is to be put back if another program leaves it out.

    Attributes:
        entries: the foreign entries, by key; of those with the same key, one text for all.
        fields: what models' entries have beyond the 16 fields, by id.
        keys: members of the whole beside `version` and `models`, by key.
        access: mode and group of the index, where they are other than usual in the folder.
    """

    entries: dict[str, KeptEntry] = field(default_factory=dict)
    fields: dict[str, KeptFields] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    access: Access | None = None

    def __bool__(self) -> bool:
        return bool(self.entries or self.fields or self.keys or self.access)

    def copy(self) -> Kept:
        """Return one that can be changed without this one."""
        return Kept(dict(self.entries), dict(self.fields), dict(self.keys), self.access)


Exists = Callable[[str], bool]
"""Tells of a bare name whether there is something of that name in the folder."""


def put_back(content: IndexContent, kept: Kept, exists: Exists) -> list[str]:
    """Put back into an index that another program has written what it left out; return what that was, in words.

    An entry whose file was there and is gone was deleted together with it, and stays out.

    Args:
        content: what was read; it is changed.
        kept: what was known before.
        exists: see `Exists`.
    """
    done: list[str] = []
    taken = content.entries.keys() | content.foreign_keys()
    for key, entry in kept.entries.items():
        if key not in taken and not (entry.was_there and not exists(entry.file)):
            for member in split_object(f"{{{entry.text}}}"):
                content.add_member(member)
            done.append(f"entry {key}" + (f" ({entry.file})" if entry.file else ""))
    for model_id in kept.fields.keys() & content.entries.keys():
        if lost := _lost_fields(content.fields.get(model_id, ()), kept.fields[model_id].fields):
            content.set_fields(model_id, content.fields.get(model_id, ()) + lost)
            done += [f"{name} of {content.entries[model_id].file_path}" for name, _ in lost]
    present = {key for key, _ in content.top}
    for key, text in kept.keys.items():
        if key not in present:
            content.add_to_top(key, text)
            done.append(f"key {key}")
    return done


def _lost_fields(present: Fields, before: Fields) -> Fields:
    names = {name for name, _ in present}
    return tuple((name, text) for name, text in before if name not in names)


def remember(content: IndexContent, before: Kept, exists: Exists) -> Kept:
    """Return what is to be put back from now on: what the index has, and what a model had whose entry is missing.

    What is not UTF-8 is never put back: no other program can read an index with it in it.

    Args:
        content: the index as it is.
        before: what was known before.
        exists: see `Exists`.
    """

    def is_readable(text: str) -> bool:
        return not (content.has_stray_bytes and holds_stray_byte(text))

    kept = Kept(keys=_joined(item for item in content.top if is_readable(item[1])), access=before.access)
    for entry in content.foreign.values():
        if not is_readable(entry.text):
            continue
        known = before.entries.get(entry.key, KeptEntry(""))
        is_here = entry.kind is not ForeignKind.OUTSIDE and bool(entry.file) and exists(entry.file)
        others = kept.entries.get(entry.key)
        text = entry.text if others is None else f"{others.text},\n{entry.text}"
        was_there = is_here or (known.was_there and known.file == entry.file)
        kept.entries[entry.key] = KeptEntry(text, entry.file, was_there)
    nothing = null_fields(NEWEST_INDEX_VERSION)
    for model_id, fields in content.fields.items():
        telling = (item for item in fields if is_readable(item[1]) and not _says_nothing(*item))
        if fields is not nothing and (told := tuple(telling)):
            kept.fields[model_id] = KeptFields(told, content.entries[model_id].file_path)
    for model_id, waiting in before.fields.items():
        if model_id not in content.entries and exists(waiting.file):
            kept.fields[model_id] = waiting
    return kept


def _says_nothing(name: str, text: str) -> bool:
    """Tell whether a field is one that a generation writes into every entry, and null."""
    if name not in index_fields(NEWEST_INDEX_VERSION):
        return False
    return split_object(f"{{{text}}}")[0].value is None


def _joined(top: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for key, text in top:
        if text:
            joined[key] = f"{joined[key]},\n{text}" if key in joined else text
    return joined


# --- on disk ----------------------------------------------------------------------------------------


def load_kept(folder: Path) -> Kept:
    """Read the memory; an unreadable one is as good as none."""
    try:
        raw = json.loads(read_small_file(folder / KEPT_FILE_NAME, _MAX_BYTES))
        return Kept(
            {key: KeptEntry(str(item["text"]), str(item["file"]), bool(item["was_there"]))
             for key, item in _dict(raw["entries"]).items() if _is_sound(item["text"])},
            {key: KeptFields(checked_fields(item["fields"]), str(item["file"]))
             for key, item in _dict(raw["fields"]).items()},
            {key: str(text) for key, text in _dict(raw["keys"]).items() if _is_sound(text)},
            None if raw["access"] is None else Access(int(raw["access"][0]) & 0o777, int(raw["access"][1])),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Kept()


def _dict(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _is_sound(text: Any) -> bool:
    """Tell whether a text is one or more members of an object: it goes into the index as it is."""
    return bool(split_object(f"{{{text}}}"))


def save_kept(folder: Path, kept: Kept) -> None:
    """Write the memory, or remove it where there is nothing to keep.

    Not durably: without it nothing is lost but what another program leaves out meanwhile.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / KEPT_FILE_NAME
    if not kept:
        path.unlink(missing_ok=True)
        return
    data = {
        "version": _VERSION,
        "access": None if kept.access is None else [kept.access.mode, kept.access.gid],
        "keys": kept.keys,
        "entries": {
            key: {"text": item.text, "file": item.file, "was_there": item.was_there}
            for key, item in kept.entries.items()
        },
        "fields": {key: {"fields": item.fields, "file": item.file} for key, item in kept.fields.items()},
    }
    write_atomic(path, [json.dumps(data).encode()], durable=False)
