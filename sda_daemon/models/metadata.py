"""What a person wants to know of a model: the 14 fields stored inside each model file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from typing import Any

from sda_daemon.models.formats import SDA

SAVED_MODEL_VERSION = 1
"""Version of the layout of model files that this program writes, and the newest that it reads."""
MODEL_FORMAT_MARKER = SDA.marker
"""Value of the `format` key of every `.sda` file."""
MODEL_FILE_EXTENSION = SDA.ending
MAX_FILE_STEM = 100
"""Longest sanitized file name, without the extension."""

_KEPT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@dataclasses.dataclass
class ModelMetadata:
    """Description of one saved model; field order and defaults are part of the file format.

    `training_date` and `save_date` are ISO 8601 (`save_date` in UTC), durations are in seconds,
    `training_epochs` is the checkpoint's own epoch number, which counts from 0.
    """

    model_id: str = ""
    name: str = "Untitled Model"
    description: str = ""
    dataset_name: str = ""
    dataset_file_count: int = 0
    dataset_total_duration_s: float = 0.0
    training_date: str = ""
    save_date: str = ""
    training_epochs: int = 0
    final_train_loss: float = 0.0
    final_val_loss: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)
    has_analysis: bool = False
    n_active_components: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the 14 fields as plain values, in file order."""
        return {**{name: getattr(self, name) for name in METADATA_FIELDS}, "tags": list(self.tags)}

    def take(self, other: ModelMetadata, names: Iterable[str]) -> None:
        """Take over some fields of another: whoever had this one saved finds in it what it was saved as."""
        for name in names:
            setattr(self, name, getattr(other, name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelMetadata:
        """Build from a file's dict; unknown keys are ignored, missing ones take their default."""
        known = {name: values[name] for name in METADATA_FIELDS if name in values}
        if "tags" in known:
            tags = known["tags"]
            known["tags"] = [str(tag) for tag in tags] if isinstance(tags, list | tuple) else []
        return cls(**known)


METADATA_FIELDS = tuple(field.name for field in dataclasses.fields(ModelMetadata))


def _sanitize_filename(name: str) -> str:
    """Turn a model's name into a portable file stem (format: see docs/formats.md).

    Everything but ASCII letters, digits, `-` and `_` becomes `_`, runs of `_` collapse, leading and
    trailing `_` go, lower case, at most 100 characters; `untitled` if nothing is left.
    """
    mapped = "".join(char if char in _KEPT else "_" for char in name)
    collapsed = "_".join(part for part in mapped.split("_") if part).lower()
    return collapsed[:MAX_FILE_STEM].strip("_") or "untitled"


def file_name_candidates(name: str | None, ending: str = MODEL_FILE_EXTENSION, model_id: str = "") -> Iterator[str]:
    """Yield file names to try for a model, the best first; there is no end of them.

    `x.sda`, then `x_1.sda` to `x_99.sda`, then with the beginning of the model's id, with more of it and with all of
    it, which hardly any other file has, however many models have this name; at last with numbers again.

    Args:
        name: what the model is called.
        ending: of its format.
        model_id: its id; without one there are only numbers.
    """
    stem = _sanitize_filename(name or "")
    yield f"{stem}{ending}"
    known = "".join(char for char in model_id[:_LONGEST_ID].lower() if char in _KEPT)
    for what in chain(range(1, _NUMBERED + 1), _beginnings(known), count(_NUMBERED + 1)):
        tail = f"_{what}"
        yield f"{stem[: MAX_FILE_STEM - len(tail)]}{tail}{ending}"


_NUMBERED = 99
"""Names that differ by a number are tried one after the other; thousands of them would take too long."""
_LONGEST_ID = 40
_SHORTEST_ID = 8


def _beginnings(model_id: str) -> Iterator[str]:
    """Yield longer and longer beginnings of an id, at last all of it."""
    if model_id:
        yield from (model_id[:length] for length in range(_SHORTEST_ID, len(model_id), 5))
        yield model_id
