"""What an index says: the entries of models that this program knows, and everything else as it stands there. Pure.

The index is shared with the generations of the training application, and with programs that do not exist yet. An
entry of a file that is no model of a known format, one with fields of wrong types, a further field, a key beside
`models`: all that is kept byte for byte, in its place, and never judged.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sda_daemon.errors import NewerIndexError
from sda_daemon.library.entry import (
    ENTRY_FIELDS,
    ModelEntry,
    can_be_named,
    entry_from_dict,
    is_bare_model_name,
    is_inside,
    usual_entry,
)
from sda_daemon.library.members import Member, split_object
from sda_daemon.models.formats import NEWEST_INDEX_VERSION, index_fields
from sda_daemon.plain_json import LongNumber, read_json
from sda_daemon.wording import quoted

VERSION_KEY, MODELS_KEY = "version", "models"
LINK_REASON = "the file is a symbolic link, which is never followed"
_OWN_LINE = re.compile(rb'\n"(?:[^"\\\n]|\\.)*": \{"[^\n]*\}(?:,\n|\n\})')
"""An entry as this program writes it, on a line of its own."""
Fields = tuple[tuple[str, str], ...]
"""Fields of an entry beyond the 16: name, and the whole member (`"name": value`) as it stands in the index."""
_FIELD_SET = frozenset(ENTRY_FIELDS)
_STRAY_BYTE = re.compile("[\udc80-\udcff]")
"""What stands for a byte that is not UTF-8."""
_SHORT_NUMBER = re.compile(r"\s*[0-9]{1,9}(\.0+)?\s*")
_encode = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": ")).encode


class ForeignKind(StrEnum):
    """Why an entry is not one of a model of this library."""

    OTHER = "other"
    """It names something in the folder that is no model file of a known format."""
    OUTSIDE = "outside"
    """It points out of the folder."""
    UNUSABLE = "unusable"
    """It is no object, lacks a file name, or has values of wrong types."""


@dataclass(frozen=True, slots=True)
class ForeignEntry:
    """An entry that is kept as it stands, and not shown among the models.

    Attributes:
        key: what it stands under.
        text: all of it, `"key": {…}`, as it stands in the index.
        kind: why it is foreign.
        file: what it names as its file, empty where it names nothing.
        reason: why it is foreign, in words.
    """

    key: str
    text: str
    kind: ForeignKind
    file: str
    reason: str


@dataclass(slots=True)
class IndexContent:
    """What an index says, in file order.

    Attributes:
        version: of its format.
        entries: the models, by id.
        fields: what their entries have beyond the 16 fields, where there is something.
        lines: entries as they are written: those that stay as they stand, and those that were encoded before.
        foreign: the other entries, by a number of their own.
        order: the places of all: ids of models and numbers of foreign entries.
        top: the members of the whole, `version` and `models` without a text.
        is_own_layout: whether it stands the way this program writes it.
        is_recovered: whether it comes from a backup, or from nothing, because the index was broken.
        has_stray_bytes: whether it holds bytes that are not UTF-8, as when it was edited in another encoding.
        links: names of files that are symbolic links: what an entry says of one is not for this program to judge.
    """

    version: int = 1
    entries: dict[str, ModelEntry] = field(default_factory=dict)
    fields: dict[str, Fields] = field(default_factory=dict)
    lines: dict[str, bytes] = field(default_factory=dict)
    foreign: dict[int, ForeignEntry] = field(default_factory=dict)
    order: dict[str | int, None] = field(default_factory=dict)
    top: tuple[tuple[str, str], ...] = ((VERSION_KEY, ""), (MODELS_KEY, ""))
    is_own_layout: bool = False
    is_recovered: bool = False
    has_stray_bytes: bool = False
    links: frozenset[str] = frozenset()

    def copy(self) -> IndexContent:
        """Return one that can be changed without this one; the entries themselves are shared."""
        return dataclasses.replace(
            self,
            entries=dict(self.entries),
            fields=dict(self.fields),
            lines=dict(self.lines),
            foreign=dict(self.foreign),
            order=dict(self.order),
        )

    def foreign_keys(self) -> set[str]:
        """Return the keys that are taken by foreign entries."""
        return {entry.key for entry in self.foreign.values()}

    def put(self, entry: ModelEntry) -> None:
        """Add an entry, or replace the one with its id; what that had beyond the 16 fields stays."""
        if entry.model_id not in self.entries:
            self.order[entry.model_id] = None
            if further := null_fields(self.version):
                self.fields[entry.model_id] = further
        self.entries[entry.model_id] = entry
        self.lines.pop(entry.model_id, None)

    def drop(self, model_id: str) -> bool:
        """Take an entry out, with all that it has; False if there is none."""
        if self.entries.pop(model_id, None) is None:
            return False
        self.fields.pop(model_id, None)
        self.lines.pop(model_id, None)
        self.order.pop(model_id, None)
        return True

    def set_fields(self, model_id: str, fields: Fields) -> None:
        """Give an entry other fields beyond the 16."""
        self.fields[model_id] = fields
        self.lines.pop(model_id, None)

    def add_foreign(self, entry: ForeignEntry) -> None:
        """Add a foreign entry at the end."""
        number = max(self.foreign, default=-1) + 1
        self.foreign[number] = entry
        self.order[number] = None

    def drop_foreign(self, entry: ForeignEntry) -> bool:
        """Take a foreign entry out; False if there is no such."""
        numbers = [number for number, known in self.foreign.items() if known == entry]
        for number in numbers:
            del self.foreign[number], self.order[number]
        return bool(numbers)

    def add_member(self, member: Member) -> None:
        """Add an entry as it stands somewhere, whatever it is.

        What stands under its key already is seen by no reader any more, because the last one counts: a model's entry
        goes, and so do foreign ones if this is a model's.
        """
        found = _read_entry(member, self.links, has_stray_bytes=self.has_stray_bytes)
        self.drop(member.key)
        if isinstance(found, ForeignEntry):
            self.add_foreign(found)
            return
        if self.foreign:
            for other in [other for other in self.foreign.values() if other.key == member.key]:
                self.drop_foreign(other)
        self.order[member.key] = None
        self.entries[member.key] = found.entry
        if found.fields:
            self.fields[member.key] = found.fields
        if found.line:
            self.lines[member.key] = found.line

    def add_to_top(self, key: str, text: str) -> None:
        """Add a member of the whole before the last one, which is `models` in an index as programs write it."""
        self.top = (*self.top[:-1], (key, text), self.top[-1])

    def mark_written(self) -> None:
        """Know that it stands on the disk now, as this program has written it."""
        self.is_recovered, self.is_own_layout = False, True

    def encoded(self) -> Iterator[bytes]:
        """Yield the bytes of the index; one entry is one line, but for those that stay as they stand."""
        yield b"{\n"
        for number, (key, text) in enumerate(self.top):
            yield b",\n" if number else b""
            if key == VERSION_KEY:
                yield f'"{VERSION_KEY}": {self.version}'.encode()
            elif key == MODELS_KEY:
                yield f'"{MODELS_KEY}": {{\n'.encode()
                yield b",\n".join(self._lines())
                yield b"\n}"
            else:
                yield _as_bytes(text, stray=self.has_stray_bytes)
        yield b"\n}\n"

    def _lines(self) -> Iterator[bytes]:
        for place in self.order:
            if isinstance(place, int):
                yield _as_bytes(self.foreign[place].text, stray=self.has_stray_bytes)
                continue
            line = self.lines.get(place)
            if line is None:
                fields = self.fields.get(place, ())
                line = self.lines[place] = encode_entry(self.entries[place], fields, stray=self.has_stray_bytes)
            yield line


def encode_entry(entry: ModelEntry, fields: Fields = (), *, stray: bool = False) -> bytes:
    """Return one entry as its line of the index: `"id": {…}`."""
    values = _encode(entry.to_dict())
    if fields:
        values = f"{values[:-1]}, {', '.join(text for _, text in fields)}}}"
    return _as_bytes(f"{_encode(entry.model_id)}: {values}", stray=stray)


def encode_field(name: str, value: Any) -> tuple[str, str]:
    """Return a field of an entry, with the member that is written for it."""
    return name, f"{_encode(name)}: {_encode(value)}"


def checked_fields(items: Iterable[Any]) -> Fields:
    """Return pairs of a name and a member's text as fields that can be written into an index.

    Raises:
        ValueError, TypeError: one is not a member of that name, and would break the index.
    """
    fields = tuple((str(name), str(text)) for name, text in items)
    for name, text in fields:
        if [member.key for member in split_object(f"{{{text}}}")] != [name]:
            raise ValueError(f"{quoted(text)} is not the field {quoted(name)}")
    return fields


@lru_cache
def null_fields(version: int) -> Fields:
    """Return what an entry of an index of this version has beyond the 16 fields as long as nothing is known of it."""
    return tuple(encode_field(name, None) for name in index_fields(version))


def _as_bytes(text: str, *, stray: bool) -> bytes:
    return text.encode("utf-8", "surrogateescape" if stray else "surrogatepass")


def holds_stray_byte(text: str) -> bool:
    """Tell whether a text out of an index with such bytes holds one that is not UTF-8."""
    return _STRAY_BYTE.search(text) is not None


# --- reading ----------------------------------------------------------------------------------------


def parse_index(raw: bytes, links: frozenset[str] = frozenset()) -> IndexContent:
    """Decode an index. An entry that cannot be used is kept as it stands, and spoils no other.

    Args:
        raw: all of it.
        links: names of files in its folder that are symbolic links.

    Raises:
        NewerIndexError: its version is larger than this program knows, or none that any program writes.
        ValueError: not JSON, or not of the shape of an index.
    """
    has_stray_bytes = False
    try:
        data = read_json(raw)
    except UnicodeDecodeError:  # some program has written a name in another encoding
        has_stray_bytes = True
        data = read_json(raw.decode(json.detect_encoding(raw), "surrogateescape"))
    if not isinstance(data, dict):
        raise ValueError(f"it holds a {type(data).__name__}, not an object")
    models = data.get(MODELS_KEY)
    if not isinstance(models, dict):
        raise ValueError(f"its models are {type(models).__name__}, not an object")
    version = _version_of(data.get(VERSION_KEY), models)
    is_own_layout = _is_own_layout(raw)
    content = None if has_stray_bytes else _usual(data, raw, version, links, is_own_layout=is_own_layout)
    if content is None:
        text = raw.decode(json.detect_encoding(raw), "surrogateescape" if has_stray_bytes else "surrogatepass")
        content = _parse(text, version, links, is_own_layout=is_own_layout, has_stray_bytes=has_stray_bytes)
    return content


def _is_own_layout(raw: bytes) -> bool:
    """Tell whether an index stands as this program writes it: others indent it, by nothing even, or write one line."""
    models = raw.find(b'"models": {\n')
    if not raw.startswith(b'{\n"') or models < 0:
        return False
    return raw.startswith(b"\n}", models + len(b'"models": {\n')) or _OWN_LINE.search(raw, models) is not None


def _version_of(version: Any, models: Mapping[str, Any]) -> int:
    """Return the version that an index evidently has: programs that are not careful write it as text, or not at all.

    Raises:
        NewerIndexError: there is none that makes sense. To read it as one or the other would be to write it as that.
    """
    if version is None:
        further = index_fields(NEWEST_INDEX_VERSION)
        has_further = any(name in entry for entry in models.values() if isinstance(entry, dict) for name in further)
        return NEWEST_INDEX_VERSION if has_further else 1
    if isinstance(version, LongNumber):
        found: int | None = None if version.startswith("-") else NEWEST_INDEX_VERSION + 1
    elif isinstance(version, str):
        found = int(float(version)) if _SHORT_NUMBER.fullmatch(version) else None
    elif isinstance(version, bool) or not isinstance(version, int | float):
        found = None
    else:
        found = int(version) if isinstance(version, int) or version.is_integer() else None
    if found is None or found < 1:
        raise NewerIndexError(
            f"the index has version {quoted(version)}, which no program writes that is known here",
            "Set it to 2 if its entries have a vocoder, else to 1, unless a newer program has written it; the file was "
            "left as it is",
        )
    if found > NEWEST_INDEX_VERSION:
        raise NewerIndexError(
            f"the index has version {quoted(version)}, newer than supported version {NEWEST_INDEX_VERSION}",
            "Update sda-daemon; the file was left as it is",
        )
    return found


def _usual(
    data: dict[str, Any], raw: bytes, version: int, links: frozenset[str], *, is_own_layout: bool
) -> IndexContent | None:
    """Take an index in which there is nothing but usual entries, as nearly every one is; None for any other.

    To know what stands there as what text takes twice as long, and is only needed where something is to be kept.
    """
    models: dict[str, Any] = data[MODELS_KEY]
    if tuple(data) != (VERSION_KEY, MODELS_KEY) or raw.count(b'"file_path"') != len(models):
        return None  # more file names than entries: a key is there twice
    names, further = index_fields(version), null_fields(version)
    entries: dict[str, ModelEntry] = {}
    fields: dict[str, Fields] = {}
    for model_id, values in models.items():
        entry, has_further = usual_entry(model_id, values, names)
        if entry is None or entry.file_path in links or not is_bare_model_name(entry.file_path):
            return None
        entries[model_id] = entry
        if has_further:
            fields[model_id] = further
    order: dict[str | int, None] = dict.fromkeys(entries)
    return IndexContent(version, entries, fields, order=order, is_own_layout=is_own_layout, links=links)


def _parse(
    text: str, version: int, links: frozenset[str], *, is_own_layout: bool, has_stray_bytes: bool
) -> IndexContent:
    """Take an index with everything that is in it."""
    top: dict[str | int, tuple[str, str]] = {}
    models: list[Member] = []
    for number, member in enumerate(split_object(text, MODELS_KEY)):
        if member.key == MODELS_KEY:
            models = member.value if isinstance(member.value, list) and not member.text else []
        is_known = member.key in (VERSION_KEY, MODELS_KEY)
        top[member.key if is_known else number] = (member.key, "" if is_known else member.text)
    top = top if VERSION_KEY in top else {VERSION_KEY: (VERSION_KEY, ""), **top}
    content = IndexContent(
        version, top=tuple(top.values()), is_own_layout=is_own_layout, has_stray_bytes=has_stray_bytes, links=links
    )
    names, further = index_fields(version), null_fields(version)
    seen: set[str] = set()
    for member in models:
        key = member.key
        entry, has_further = usual_entry(key, member.value, names)
        is_odd = has_stray_bytes and holds_stray_byte(member.text)
        is_odd = is_odd or (entry is not None and entry.file_path in links)
        if entry is None or is_odd or key in seen or not is_bare_model_name(entry.file_path):
            content.add_member(member)
        else:
            content.entries[key] = entry
            content.order[key] = None
            if has_further:
                content.fields[key] = further
        seen.add(key)
    return content


@dataclass(frozen=True, slots=True)
class _Found:
    """A model's entry as it was read; `line` is empty where it must be encoded anew."""

    entry: ModelEntry
    fields: Fields
    line: bytes


def _read_entry(member: Member, links: frozenset[str], *, has_stray_bytes: bool) -> _Found | ForeignEntry:
    """Tell whether an entry is that of a model, and what is to be kept of it."""
    values = member.value
    file = values.get("file_path") if isinstance(values, dict) else None
    named = file if isinstance(file, str) else ""
    if named and not is_inside(named):
        return ForeignEntry(member.key, member.text, ForeignKind.OUTSIDE, named, "it points out of the folder")
    if named in links:
        return ForeignEntry(member.key, member.text, ForeignKind.OUTSIDE, named, LINK_REASON)
    try:
        entry, _ = entry_from_dict(member.key, values)
        if has_stray_bytes:
            _refuse_stray_bytes(entry)
    except ValueError as error:
        return ForeignEntry(member.key, member.text, ForeignKind.UNUSABLE, named, str(error))
    if not is_bare_model_name(named):
        reason = "its file is of no format that this program knows"
        if not can_be_named(named):
            reason = "no file can have this name: a part of it is not a character"
        return ForeignEntry(member.key, member.text, ForeignKind.OTHER, named, reason)
    fields = _fields_of(member)
    is_whole = values.keys() >= _FIELD_SET
    return _Found(entry, fields, _as_bytes(member.text, stray=has_stray_bytes) if fields and is_whole else b"")


def _refuse_stray_bytes(entry: ModelEntry) -> None:
    """Refuse an entry that holds bytes which are not UTF-8.

    Raises:
        ValueError: it does; the message names the field.
    """
    for name, value in entry.to_dict().items():
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and holds_stray_byte(text) for text in texts):
            raise ValueError(f"{name} holds bytes that are not UTF-8: {quoted(value)}")


def _fields_of(member: Member) -> Fields:
    if member.value.keys() <= _FIELD_SET:
        return ()
    return tuple((part.key, part.text) for part in split_object(member.value_text) if part.key not in _FIELD_SET)
