"""Whether a model is in use: then nothing that goes on by itself removes it, replaces it or lets it give way."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from sda_daemon import events
from sda_daemon.errors import ModelFileError
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.index_file import is_null
from sda_daemon.library.restored import restored_ids
from sda_daemon.library.touched import is_touched
from sda_daemon.models.header import read_model_header
from sda_daemon.os_errors import explained
from sda_daemon.small_files import read_small_file
from sda_daemon.wording import quoted

PRESETS_NAME = "presets.json"
HISTORY_NAME = "history.json"
MAX_HISTORY_BYTES = 2**28
PRESETS, HISTORY = "presets", "history"


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
        self._fault: Exception | None = None
        self._told: set[tuple[Path, str]] = set()

    def why(self, library: ModelLibrary, entry: ModelEntry) -> str:
        """Return why a model is in use; empty if nothing speaks for it.

        What cannot be read speaks for it, too: who does not know must not remove.
        """
        for item in library.entries_of(entry):
            if reason := self._why_entry(library, item.model_id):
                return reason
        try:
            header = read_model_header(library.models_dir / entry.file_path)
        except FileNotFoundError:
            return ""
        except (ModelFileError, OSError):
            return "its file cannot be read"
        if not header.origin.made_by_daemon:
            return "it was saved by hand"
        if header.further:
            return f"another program has put {quoted(header.further[0])} into its file"
        is_changed = is_touched(entry, header.metadata, header.origin, header.mtime_ns)
        return "a person has named, described or tagged it" if is_changed else ""

    def _why_entry(self, library: ModelLibrary, model_id: str) -> str:
        """Return what speaks for a model under one of the ids that it has in the index."""
        if reason := self._in_presets(model_id) or self._in_history(model_id):
            return reason
        if model_id in restored_ids(library.models_dir):
            return "it was restored"
        if added := [name for name, text in library.fields_of(model_id) if not is_null(text)]:
            return f"another program has put {quoted(added[0])} into its entry"
        return ""

    def _in_presets(self, model_id: str) -> str:
        """Return that a model has presets, or that this cannot be known."""
        if self._presets is None or "/" in model_id or "\0" in model_id or model_id in ("", ".", ".."):
            return ""
        try:
            (self._presets / model_id / PRESETS_NAME).lstat()
        except OSError as error:
            return self._unknown(self._presets, error)
        return "it has presets"

    def _in_history(self, model_id: str) -> str:
        """Return that a model stands in the history, or that this cannot be known."""
        if self._history is None:
            return ""
        try:
            status = self._history.stat()
            seen = (status.st_size, status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                if not stat.S_ISREG(status.st_mode):
                    raise ValueError("it is not a regular file")
                self._read_history(self._history, seen)
            if self._fault is not None:
                raise self._fault
        except (OSError, ValueError, RecursionError) as error:
            return self._unknown(self._history.parent, error)
        return "it stands in the history" if model_id in self._ids else ""

    def _read_history(self, path: Path, seen: tuple[int, ...]) -> None:
        """Read the history, once for each content: also one that cannot be understood costs its time only once.

        Raises:
            OSError: it cannot be read now.
        """
        content = read_small_file(path, MAX_HISTORY_BYTES)
        try:
            ids, fault = frozenset(_ids_in(json.loads(content))), None
        except (ValueError, RecursionError) as error:
            ids, fault = frozenset(), error
        self._seen, self._ids, self._fault = seen, ids, fault

    def _unknown(self, folder: Path, error: Exception) -> str:
        """Return why a folder of the application does not tell; empty if there is just nothing in it yet."""
        what = PRESETS if folder is self._presets else HISTORY
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            if folder.parent.is_dir():
                return ""
            reason = f"{folder.parent} is not there: is it mounted?"
        else:
            reason = explained(error)
        if (folder, reason) not in self._told:
            self._told.add((folder, reason))
            events.APPLICATION_UNREADABLE(folder=str(folder), what=what, reason=reason)
        return f"the application's {what} cannot be read ({reason})"


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
