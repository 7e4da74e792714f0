"""What a model's file said of itself at the last look, and what of that an entry takes over. Pure.

The index and the file both say what a model is called and how it is described, and other programs change either alone.
So an entry follows its file only in what the file says otherwise than before. Where that is not known, the index is
believed in a person's words and the file in the facts, unless the file was evidently saved anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from sda_daemon.library.entry import ModelEntry
from sda_daemon.models.metadata import ModelMetadata

_FIELDS = tuple(ModelMetadata().to_dict())
WORDS = ("name", "description", "dataset_name", "dataset_file_count", "dataset_total_duration_s", "tags")
"""Fields that a person gives."""
_COUNTS = ("dataset_file_count", "dataset_total_duration_s")
_FACTS_OF_A_SAVING = ("save_date", "training_date", "training_epochs", "final_train_loss", "final_val_loss")
_BYTES, _LETTERS = 3, 4


def said_by(metadata: ModelMetadata) -> str:
    """Return what a file says, as one short text: four letters for each of the 14 fields, the id first."""
    return "".join(map(_token, metadata.to_dict().values()))


def has_same_id(before: str, metadata: ModelMetadata) -> bool:
    """Tell whether a file says the same id as it did before; False where that is not known."""
    return before.startswith(_token(metadata.model_id))


def follow_file(entry: ModelEntry, metadata: ModelMetadata, before: str) -> dict[str, Any]:
    """Return the metadata that an entry has after another look at its file, but for the id.

    Args:
        entry: as it is.
        metadata: what the file says now.
        before: what it said when it was last looked at, see `said_by`; empty if that is not known.
    """
    now = said_by(metadata)
    is_anew = not before and contradicts(entry, metadata)
    values = metadata.to_dict()
    for number, name in enumerate(_FIELDS):
        begin = number * _LETTERS
        same = before[begin : begin + _LETTERS] == now[begin : begin + _LETTERS]
        known = getattr(entry, name)
        if known is None or is_anew:
            continue
        if same if before else name in WORDS and not (name in _COUNTS and _is_unset(known)):
            values[name] = known
    del values["model_id"]
    return values


def contradicts(entry: ModelEntry, metadata: ModelMetadata) -> bool:
    """Tell whether an entry is certainly not that of a file: it says when or how well another model was trained."""
    return any(
        left != right and not _is_unset(left) and not _is_unset(right) for left, right in _facts(entry, metadata)
    )


def confirms(entry: ModelEntry, metadata: ModelMetadata) -> bool:
    """Tell whether an entry and a file tell of the same saving of one model."""
    return bool(metadata.save_date) and entry.save_date == metadata.save_date and not contradicts(entry, metadata)


def _facts(entry: ModelEntry, metadata: ModelMetadata) -> list[tuple[Any, Any]]:
    return [(getattr(entry, name), getattr(metadata, name)) for name in _FACTS_OF_A_SAVING]


def _is_unset(value: Any) -> bool:
    return not value or value != value  # noqa: PLR0124 - only NaN is not itself


def _token(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    digest = hashlib.blake2b(json.dumps(value).encode(), digest_size=_BYTES).digest()
    return base64.b64encode(digest).decode()
