"""One model's line in the index: the 16 fields, and how entries are checked and sorted. Pure."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from sda_daemon.models.metadata import MODEL_FILE_EXTENSION, ModelMetadata


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
_DEFAULTS: dict[str, Any] = {**ModelMetadata().to_dict(), "file_size_bytes": 0}
_FIELD_SET = frozenset(ENTRY_FIELDS)
_NUMERIC_TYPES = (int, float, bool, type(None))
_TEXT_TYPES = (str, type(None))


def entry_from_dict(model_id: str, values: Any) -> tuple[ModelEntry, dict[str, Any]]:
    """Check one raw entry of an index; return it with the fields that this version does not know.

    Missing descriptive fields take their default; None is let through where a value is only shown.

    Raises:
        ValueError: not a dict, no usable id or file name, or a field of a wrong type; the message
            names the field and the value.

    """
    if type(values) is not dict:
        raise ValueError(f"an entry must be an object, this one is {type(values).__name__}")
    if len(values) != len(ENTRY_FIELDS) or values.keys() != _FIELD_SET:
        extra = {key: value for key, value in values.items() if key not in _FIELD_SET}
        values = {name: values[name] if name in values else _DEFAULTS.get(name) for name in ENTRY_FIELDS}
        if values["model_id"] == "":
            values["model_id"] = model_id
    else:
        extra = {}
    if values["model_id"] != model_id:
        raise ValueError(f"its model_id is {reprlib.repr(values['model_id'])}, not the key it stands under")
    if not isinstance(values["file_path"], str) or not values["file_path"]:
        raise ValueError(f"file_path must be a file name, not {reprlib.repr(values['file_path'])}")
    for name in _TEXTS:
        if not isinstance(values[name], _TEXT_TYPES):
            raise ValueError(f"{name} must be text, not {reprlib.repr(values[name])}")
    for name in _NUMBERS:
        if not isinstance(values[name], _NUMERIC_TYPES):
            raise ValueError(f"{name} must be a number, not {reprlib.repr(values[name])}")
    tags = values["tags"]
    if tags is None:
        values = {**values, "tags": []}
    elif not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"tags must be a list of texts, not {reprlib.repr(tags)}")
    return ModelEntry(**values), extra


def is_bare_model_name(file_path: str) -> bool:
    """Tell whether `file_path` is the plain name of a `.sda` file: no folder, no `..`, no NUL."""
    return (
        file_path.endswith(MODEL_FILE_EXTENSION)
        and not file_path.startswith(".")
        and "/" not in file_path
        and "\\" not in file_path
        and "\0" not in file_path
    )


def sort_entries(entries: Iterable[ModelEntry], sort_by: str, reverse: bool) -> list[ModelEntry]:
    """Return the entries in order of one field; missing values (None, NaN, empty text) come last.

    Texts compare without regard to case, values of different kinds never compare with each other.
    Ties are broken by model id, so that the order is always the same.

    Raises:
        ValueError: `sort_by` is not one of the 16 fields; the message lists them.

    """
    if sort_by not in _FIELD_SET:
        raise ValueError(f"cannot sort by {sort_by!r}; choose one of: {', '.join(ENTRY_FIELDS)}")
    present: list[tuple[Any, ModelEntry]] = []
    missing: list[ModelEntry] = []
    for entry in entries:
        value = getattr(entry, sort_by)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            missing.append(entry)
        else:
            present.append((_comparable(value), entry))
    present.sort(key=lambda pair: pair[1].model_id)
    present.sort(key=lambda pair: pair[0], reverse=reverse)
    missing.sort(key=lambda entry: entry.model_id)
    return [entry for _, entry in present] + missing


def _comparable(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool | int | float):
        return (0, value)
    if isinstance(value, list):
        return (2, [str(item).casefold() for item in value])
    return (1, str(value).casefold())


def search_entries(entries: Iterable[ModelEntry], query: str, tags: Iterable[str] | None) -> list[ModelEntry]:
    """Return the entries whose name or description contains `query` and that have any of `tags`, ignoring case."""
    found = list(entries)
    if query:
        needle = query.casefold()
        found = [
            entry
            for entry in found
            if needle in (entry.name or "").casefold() or needle in (entry.description or "").casefold()
        ]
    wanted = {tag.casefold() for tag in tags or ()}
    if wanted:
        found = [entry for entry in found if not wanted.isdisjoint(tag.casefold() for tag in entry.tags)]
    return found


def differs(entry: ModelEntry, values: Mapping[str, Any]) -> bool:
    """Tell whether any field of `entry` is not what `values` says (NaN equals NaN)."""
    return any(not _same(getattr(entry, name), value) for name, value in values.items())


def _same(left: Any, right: Any) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)
    return both_nan or left == right
