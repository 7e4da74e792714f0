"""Whether a person has changed what a model is called and how it is described. Pure.

A model carries, in its provenance, a digest of the words that it was made with. Words that no longer fit it are a
person's, given with whatever program.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sda_daemon.library.entry import ModelEntry

WORDS_DIGEST = "words_digest"
"""The key in the provenance."""
_APART = re.compile(r" \([^()]*\)$")


def words_digest(name: str, description: str, dataset_name: str, tags: Iterable[str]) -> str:
    """Return the digest of a model's words; the name is the one without what tells it from another of that name."""
    content = json.dumps([name, description, dataset_name, *tags], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def is_touched(entry: ModelEntry, provenance: Mapping[str, Any]) -> bool:
    """Tell whether a model's words are not the ones that it was made with; False where those were not recorded."""
    recorded = provenance.get(WORDS_DIGEST)
    if not isinstance(recorded, str) or not recorded:
        return False
    name = entry.name or ""
    return all(
        words_digest(known, entry.description or "", entry.dataset_name or "", entry.tags) != recorded
        for known in (name, _APART.sub("", name))
    )
