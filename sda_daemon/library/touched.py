"""Whether a person has changed what a model is called and how it is described. Pure.

A model carries, in its provenance, a digest of the words that it was made with. Words that no longer fit it are a
person's, given with whatever program.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.said import WORDS
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.models.provenance import Provenance

BY_A_PERSON = "by a person"
"""What stands in place of the digest once it is known that a person has changed them."""
_LONGEST_WRITING_S = 60.0


def words_digest(item: ModelMetadata | ModelEntry) -> str:
    """Return the digest of a model's words: all that a person may give it."""
    values = [getattr(item, name) for name in WORDS]
    whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    return hashlib.sha256(json.dumps(whole, ensure_ascii=True).encode()).hexdigest()[:16]


def is_touched(entry: ModelEntry, metadata: ModelMetadata, origin: Provenance, mtime_ns: int) -> bool:
    """Tell whether a model's words are not, or may not be, the ones that it was made with.

    Earlier versions did not record these: then the words count as a person's if the index has others than the file, or
    the file was written after it had been made.

    Args:
        entry: the model's.
        metadata: what its file says.
        origin: where it comes from, as its file says.
        mtime_ns: when its file was last written, in nanoseconds since 1970.
    """
    if origin.words_digest:
        return not words_digest(entry) == words_digest(metadata) == origin.words_digest
    try:
        made = datetime.fromisoformat(origin.converted_at)
    except ValueError:
        return True
    made_s = (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    return words_digest(entry) != words_digest(metadata) or mtime_ns / 1e9 > made_s + _LONGEST_WRITING_S
