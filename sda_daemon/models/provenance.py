"""Where a model came from, as its file tells under `provenance`. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model came from; empty texts and None where that is not told.

    Attributes:
        source_file: name of the checkpoint.
        source_path: its path below the watched folder.
        source_mtime_ns: its modification time, in nanoseconds since 1970.
        source_root: digest of the watched folder's path, see `root_digest`.
        made_by_daemon: whether the daemon made the model, and not a person.
        source_size_bytes: size of the checkpoint.
        source_digest: of its content.
        weights_digest: of the model's weights: what the model is.
        template_digest: of the templates that gave it its words.
        words_digest: of the words that no person has given, see `library.touched`.
        converted_at: ISO 8601 in UTC.
    """

    source_file: str = ""
    source_path: str = ""
    source_mtime_ns: int | None = None
    source_root: str = ""
    made_by_daemon: bool | None = None
    source_size_bytes: int | None = None
    source_digest: str = ""
    weights_digest: str = ""
    template_digest: str = ""
    words_digest: str = ""
    converted_at: str = ""

    @classmethod
    def read(cls, raw: Mapping[Any, Any]) -> Provenance:
        """Read what a file tells; values of other types count as not told."""
        known: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = raw.get(field.name)
            wanted = str if field.default == "" else bool if field.name == "made_by_daemon" else int
            if type(value) is wanted:
                known[field.name] = value
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """Return what is told, as a file holds it."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None and value != ""}


def root_digest(root: str) -> str:
    """Return a digest of a watched folder's path: models tell where they come from, but not who lives there."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
