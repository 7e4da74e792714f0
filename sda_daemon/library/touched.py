"""Whether a person has changed what a model is called and how it is described. Pure.

A model carries, in its provenance, a digest of the words that it was made with. Words that no longer fit it are a
person's, given with whatever program.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.said import WORDS
from sda_daemon.models.metadata import ModelMetadata

WORDS_DIGEST = "words_digest"
"""The key in the provenance."""
BY_A_PERSON = "by a person"
"""What stands there once it is known that a person has changed them: no digest."""
_LONGEST_WRITING_S = 60.0


def words_digest(item: ModelMetadata | ModelEntry) -> str:
    """Return the digest of a model's words: all that a person may give it."""
    values = [getattr(item, name) for name in WORDS]
    whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    return hashlib.sha256(json.dumps(whole, ensure_ascii=True).encode()).hexdigest()[:16]


def is_touched(entry: ModelEntry, metadata: ModelMetadata, provenance: Mapping[str, Any], mtime_ns: int) -> bool:
    """Tell whether a model's words are not, or may not be, the ones that it was made with.

    Earlier versions did not record these: then the words count as a person's if the index has others than the file, or
    the file was written after it had been made.

    Args:
        entry: the model's.
        metadata: what its file says.
        provenance: what its file says of where it comes from.
        mtime_ns: when its file was last written, in nanoseconds since 1970.
    """
    recorded = provenance.get(WORDS_DIGEST)
    if isinstance(recorded, str) and recorded:
        return not words_digest(entry) == words_digest(metadata) == recorded
    try:
        made = datetime.fromisoformat(str(provenance.get("converted_at")))
    except ValueError:
        return True
    made_s = (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    return words_digest(entry) != words_digest(metadata) or mtime_ns / 1e9 > made_s + _LONGEST_WRITING_S
