"""Whether a model is in use: then nothing that goes on by itself removes it, replaces it or lets it give way."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from sda_daemon.errors import ModelFileError
from sda_daemon.files import read_small_file
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.restored import restored_ids
from sda_daemon.library.touched import is_touched
from sda_daemon.models.header import read_model_header

PRESETS_NAME = "presets.json"
HISTORY_NAME = "history.json"
MAX_HISTORY_BYTES = 2**28


class InUse:
    """What people made with the models of a library.

    Args:
        presets: where the application keeps presets, `<model id>/presets.json`; None if that is not known.
        history: where it keeps its history, `history.json`; likewise.
    """

    def __init__(self, presets: Path | None = None, history: Path | None = None) -> None:
        self._presets = presets
        self._history = history / HISTORY_NAME if history is not None else None
        self._seen: tuple[int, ...] = ()
        self._ids: frozenset[str] = frozenset()

    def why(self, library: ModelLibrary, entry: ModelEntry) -> str:
        """Return why a model is in use; empty if nothing speaks for it.

        What cannot be read speaks for it, too: who does not know must not remove.
        """
        if self._has_presets(entry.model_id):
            return "it has presets"
        if reason := self._in_history(entry.model_id):
            return reason
        if entry.model_id in restored_ids(library.models_dir):
            return "it was restored"
        try:
            header = read_model_header(library.models_dir / entry.file_path)
        except FileNotFoundError:
            return ""
        except (ModelFileError, OSError):
            return "its file cannot be read"
        if not header.provenance.get("made_by_daemon"):
            return "it was saved by hand"
        return "a person has named, described or tagged it" if is_touched(entry, header.provenance) else ""

    def _has_presets(self, model_id: str) -> bool:
        if self._presets is None or "/" in model_id or "\0" in model_id or model_id in ("", ".", ".."):
            return False
        return os.path.lexists(self._presets / model_id / PRESETS_NAME)

    def _in_history(self, model_id: str) -> str:
        """Return that a model stands in the history, or that this cannot be known."""
        if self._history is None:
            return ""
        try:
            status = self._history.stat()
            seen = (status.st_size, status.st_mtime_ns, status.st_ino)
            if seen != self._seen and stat.S_ISREG(status.st_mode):
                content = json.loads(read_small_file(self._history, MAX_HISTORY_BYTES))
                self._seen, self._ids = seen, frozenset(_ids_in(content))
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except (OSError, ValueError, RecursionError) as error:
            return f"the application's history cannot be read ({error})"
        return "it stands in the history" if model_id in self._ids else ""


def _ids_in(content: Any) -> set[str]:
    """Return every `model_id` in a JSON value, however deep."""
    found: set[str] = set()
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(model_id := item.get("model_id"), str):
                found.add(model_id)
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found
