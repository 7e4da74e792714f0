"""One model's line in the index: the 16 fields, and how entries are checked and sorted. Pure."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from sda_daemon.models.formats import ENDINGS, has_model_ending
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.plain_json import LongNumber
from sda_daemon.wording import quoted


@dataclasses.dataclass
class ModelEntry:
    """One model in `model_library.json`; field order is the format's, `file_path` a bare file name.

    The training application builds its own entry from exactly these 16 fields. Dates are ISO 8601,
    `dataset_total_duration_s` is in seconds.
    """

    model_id: str
    name: str
    description: str
    file_path: str
    file_size_bytes: int
    dataset_name: str
    dataset_file_count: int
    dataset_total_duration_s: float
    training_date: str
    save_date: str
    training_epochs: int
    final_train_loss: float
    final_val_loss: float
    has_analysis: bool
    n_active_components: int
    tags: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the 16 fields as plain values, in index order."""
        values = dict(zip(ENTRY_FIELDS, (getattr(self, name) for name in ENTRY_FIELDS), strict=True))
        values["tags"] = list(self.tags)
        return values

    @classmethod
    def from_metadata(cls, metadata: ModelMetadata, file_path: str, file_size_bytes: int) -> ModelEntry:
        """Build the entry of the file `file_path` from the metadata stored inside it."""
        return cls(**metadata.to_dict(), file_path=file_path, file_size_bytes=file_size_bytes)

    def metadata(self) -> ModelMetadata:
        """Return the part of the entry that is also stored inside the file."""
        return ModelMetadata.from_dict(self.to_dict())


ENTRY_FIELDS = tuple(field.name for field in dataclasses.fields(ModelEntry))
_TEXTS = ("name", "description", "dataset_name", "training_date", "save_date")
_NUMBERS = (
    "file_size_bytes",
    "dataset_file_count",
    "dataset_total_duration_s",
    "training_epochs",
    "final_train_loss",
    "final_val_loss",
    "n_active_components",
)
_FLAG = "has_analysis"
_DEFAULTS: dict[str, Any] = {**ModelMetadata().to_dict(), "file_size_bytes": 0}
_FIELD_SET = frozenset(ENTRY_FIELDS)
_NUMERIC_TYPES = (int, float, bool, type(None))


def usual_entry(model_id: str, values: Any, further: tuple[str, ...] = ()) -> tuple[ModelEntry | None, bool]:
    """Take a raw entry as it is if it is like nearly every other: the 16 fields in order, of the types that they have.

    Args:
        model_id: what it stands under.
        values: the raw entry; it becomes the model's.
        further: fields that may come behind the 16, all of them null.

    Returns:
        The entry, None if this one must be looked at more closely, and whether the further fields are there.
    """
    if type(values) is not dict or values.get("model_id") != model_id:
        return None, False
    names, has_further = tuple(values), False
    if further and names == ENTRY_FIELDS + further and all(values[name] is None for name in further):
        has_further = True
        values = {name: values[name] for name in ENTRY_FIELDS}
    elif names != ENTRY_FIELDS:
        return None, False
    if not _is_usual(values):
        return None, False
    entry = object.__new__(ModelEntry)
    entry.__dict__.update(values)
    return entry, has_further


def entry_from_dict(model_id: str, values: Any) -> tuple[ModelEntry, dict[str, Any]]:
    """Check one raw entry of an index; return it with the fields that this version does not know.

    Missing descriptive fields take their default; None is let through where a value is only shown.

    Raises:
        ValueError: not a dict, no usable id or file name, or a field of a wrong type; the message
            names the field and the value.
    """
    if type(values) is not dict:
        raise ValueError(f"an entry must be an object, this one is {type(values).__name__}")
    usual, _ = usual_entry(model_id, values)
    if usual is not None:
        return usual, {}
    if len(values) != len(ENTRY_FIELDS) or values.keys() != _FIELD_SET:
        extra = {key: value for key, value in values.items() if key not in _FIELD_SET}
        values = {name: values[name] if name in values else _DEFAULTS.get(name) for name in ENTRY_FIELDS}
        if values["model_id"] == "":
            values["model_id"] = model_id
    else:
        extra = {}
    if values["model_id"] != model_id:
        raise ValueError(f"its model_id is {quoted(values['model_id'])}, not the key it stands under")
    if values["tags"] is None:
        values = {**values, "tags": []}
    check_fields(values)
    return ModelEntry(**{**values, "tags": list(values["tags"])}), extra


def check_entry(entry: ModelEntry) -> None:
    """Check an entry that is to be put into an index.

    Raises:
        ValueError: it has no id, its file_path is not the bare name of a model file, or see `check_fields`.
    """
    if not entry.model_id:
        raise ValueError(f"the entry of {quoted(entry.file_path)} has no model_id")
    if not isinstance(entry.file_path, str) or not is_bare_model_name(entry.file_path):
        endings = ", ".join(ENDINGS)
        raise ValueError(f"file_path {quoted(entry.file_path)} must be the bare name of a model file ({endings})")
    check_fields({name: getattr(entry, name) for name in ENTRY_FIELDS})


def check_fields(values: Mapping[str, Any]) -> None:
    """Check the types of an entry's 16 fields; None passes where a value is only shown.

    Raises:
        ValueError: a field has a value that no index can hold; the message names both.
    """
    if not _is_text(values["model_id"]):
        raise ValueError(f"model_id must be text, not {quoted(values['model_id'])}")
    if not _is_text(values["file_path"]) or not values["file_path"]:
        raise ValueError(f"file_path must be a file name, not {quoted(values['file_path'])}")
    for name in _TEXTS:
        if values[name] is not None and not _is_text(values[name]):
            raise ValueError(f"{name} must be text, not {quoted(values[name])}")
    for name in (*_NUMBERS, _FLAG):
        if not isinstance(values[name], _NUMERIC_TYPES):
            wanted = "true or false" if name == _FLAG else "a number"
            raise ValueError(f"{name} must be {wanted}, not {quoted(values[name])}")
        if isinstance(values[name], int) and _is_too_long(values[name]):
            raise ValueError(f"{name} has more digits than can be written: {quoted(values[name])}")
    tags = values["tags"]
    if not isinstance(tags, list) or not all(map(_is_text, tags)):
        raise ValueError(f"tags must be a list of texts, not {quoted(tags)}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, LongNumber)


def _is_too_long(value: int) -> bool:
    """Tell whether Python would refuse to write a whole number."""
    if value.bit_length() < _SHORT_BITS:
        return False
    limit = sys.get_int_max_str_digits()
    return bool(limit) and abs(value) >= 10**limit


_SHORT_BITS = 2048
"""Of whole numbers with fewer digits than any limit."""


def _is_usual(values: Mapping[str, Any]) -> bool:
    """Tell whether all values are of the types that programs write: nearly every entry is, and quickly seen to be."""
    if tuple(map(type, values.values())) not in _USUAL_TYPES or not values["file_path"]:
        return False
    return set(map(type, values["tags"])) <= {str}


_USUAL_TYPES = frozenset(
    (str, str, str, str, int, str, int, duration, str, str, int, train_loss, val_loss, bool, int, list)
    for duration in (int, float)
    for train_loss in (int, float)
    for val_loss in (int, float)
)


def is_bare_model_name(file_path: str) -> bool:
    """Tell whether `file_path` is the plain name of a model file: no folder, no `..`, a name that files can have."""
    return (
        has_model_ending(file_path)
        and not file_path.startswith(".")
        and is_inside(file_path)
        and can_be_named(file_path)
    )


def is_inside(file_path: str) -> bool:
    """Tell whether `file_path` is the plain name of something directly in the folder, whatever it is."""
    return file_path not in ("", ".", "..") and "/" not in file_path and "\\" not in file_path and "\0" not in file_path


def can_be_named(name: str) -> bool:
    """Tell whether a file can have a name: names are bytes, and not every lone surrogate stands for one."""
    try:
        return name.isascii() or bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False


def sort_entries(entries: Iterable[ModelEntry], sort_by: str, reverse: bool) -> list[ModelEntry]:
    """Return the entries in order of one field; missing values (None, NaN, empty text) come last.

    Texts compare without regard to case, values of different kinds never compare with each other. Equal
    values stay in the order of the index.

    Raises:
        ValueError: `sort_by` is not one of the 16 fields; the message lists them.
    """
    if sort_by not in _FIELD_SET:
        raise ValueError(f"cannot sort by {quoted(sort_by)}; choose one of: {', '.join(ENTRY_FIELDS)}")
    entries = list(entries)
    values = list(map(attrgetter(sort_by), entries))
    if set(map(type, values)) == {str} and all(values):  # as almost always; ten thousand are to take no time
        texts = list(map(str.casefold, values))
        return [entries[index] for index in sorted(range(len(texts)), key=texts.__getitem__, reverse=reverse)]
    present: list[ModelEntry] = []
    keys: list[Any] = []
    missing: list[ModelEntry] = []
    for entry, value in zip(entries, values, strict=True):
        if value is None or value == "" or value != value:  # noqa: PLR0124 - only NaN is not itself
            missing.append(entry)
        else:
            present.append(entry)
            keys.append(value)
    kinds = set(map(type, keys))
    if kinds == {str}:
        keys = [key.casefold() for key in keys]
    elif not kinds <= {int, float, bool}:
        keys = [_comparable(key) for key in keys]
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=reverse)
    return [present[index] for index in order] + missing


def _comparable(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool | int | float):
        return (0, value)
    if isinstance(value, list):
        return (2, [str(item).casefold() for item in value])
    return (1, str(value).casefold())


def searched_text(entry: ModelEntry) -> str:
    """Return the text that `search_entries` looks into, without regard to case."""
    return f"{entry.name or ''}{_BETWEEN}{entry.description or ''}".casefold()


_BETWEEN = "\0"
"""Keeps a query from matching the end of the name and the beginning of the description."""


def search_entries(
    entries: Iterable[tuple[ModelEntry, str]], query: str, tags: Iterable[str] | None
) -> list[ModelEntry]:
    """Return the entries whose name or description contains `query` and that have any of `tags`, ignoring case.

    Args:
        entries: each with its `searched_text`.
        query: substring; empty matches everything.
        tags: none matches everything.
    """
    needle = query.casefold()
    if _BETWEEN in needle:
        return []  # in no name and no description that a program has written
    found = [entry for entry, text in entries if needle in text]
    wanted = {tag.casefold() for tag in tags or ()}
    if not wanted:
        return found
    is_wanted: dict[str, bool] = {}  # few different tags are on many entries
    kept = []
    for entry in found:
        for tag in entry.tags:
            hit = is_wanted.get(tag)
            if hit is None:
                hit = is_wanted[tag] = tag.casefold() in wanted
            if hit:
                kept.append(entry)
                break
    return kept


def differs(entry: ModelEntry, values: Mapping[str, Any]) -> bool:
    """Tell whether any field of `entry` is not what `values` says (NaN equals NaN)."""
    return any(not _same(getattr(entry, name), value) for name, value in values.items())


def _same(left: Any, right: Any) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)
    return both_nan or left == right
