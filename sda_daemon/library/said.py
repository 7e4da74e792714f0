"""What a model's file said of itself at the last look, and what of that an entry takes over. Pure.

The index and the file both say what a model is called and how it is described, and other programs change either alone.
The facts are the file's. In the words that a person gives, an entry follows its file only in what that says otherwise
than before; where that is not known, the index is believed, unless the file was evidently saved anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any

from sda_daemon.library.entry import ModelEntry
from sda_daemon.models.metadata import ModelMetadata

_FIELDS = tuple(ModelMetadata().to_dict())
WORDS = ("name", "description", "dataset_name", "dataset_file_count", "dataset_total_duration_s", "tags")
"""Fields that a person gives."""
_DEFAULT_NAME = ModelMetadata().name
_DATES = ("save_date", "training_date")
_LOSSES = ("final_train_loss", "final_val_loss")
_NEARLY = 0.01
"""Losses that differ by less than this share are rounded ones."""
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
        if name not in WORDS or is_anew or _is_default(name, known):
            continue
        if same if before else not _is_unset(known):
            values[name] = known
    del values["model_id"]
    return values


def contradicts(entry: ModelEntry, metadata: ModelMetadata) -> bool:
    """Tell whether an entry is certainly not that of a file: it says when or how well another model was trained."""
    for name in (*_DATES, *_LOSSES):
        left, right = getattr(entry, name), getattr(metadata, name)
        if not _is_unset(left) and not _is_unset(right) and not _agree(left, right):
            return True
    return False


def confirms(entry: ModelEntry, metadata: ModelMetadata) -> bool:
    """Tell whether an entry and a file tell of the same saving of one model."""
    return bool(metadata.save_date) and entry.save_date == metadata.save_date and not contradicts(entry, metadata)


def _agree(left: Any, right: Any) -> bool:
    """Tell whether two programs may mean the same: losses may be rounded, dates written in other ways."""
    if isinstance(left, str) or isinstance(right, str):
        return left == right or _moment(left) == _moment(right) is not None
    return left == right or math.isclose(left, right, rel_tol=_NEARLY)


def _moment(text: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _is_default(name: str, value: Any) -> bool:
    """Tell whether nobody has given a word: an entry without a name gets the default one when it is read."""
    return value is None or (name == "name" and value == _DEFAULT_NAME)


def _is_unset(value: Any) -> bool:
    return not value or value != value  # noqa: PLR0124 - only NaN is not itself


def _token(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    digest = hashlib.blake2b(json.dumps(value).encode(), digest_size=_BYTES).digest()
    return base64.b64encode(digest).decode()
