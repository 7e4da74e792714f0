"""Reads the `sda.yaml` files that people keep with their recordings."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sda_daemon.errors import ConfigError
from sda_daemon.rules import Notes
from sda_daemon.settings.source import parse_notes

NOTES_FILE_NAME = "sda.yaml"
MAX_NOTES_BYTES = 64 * 1024


def read_notes(checkpoint: Path, watch_root: Path | None) -> tuple[list[Notes], list[tuple[str, str]]]:
    """Return all notes about a checkpoint, and (path, reason) of those that cannot be used.

    Notes are looked for in its folder and in those above, up to the watched folder; without one, only in its
    own folder. They come from above downward.
    """
    folders = [checkpoint.parent]
    if watch_root is not None and checkpoint.is_relative_to(watch_root):
        inside = [folder for folder in checkpoint.parents if folder.is_relative_to(watch_root)]
        folders = list(reversed(inside))
    found: list[Notes] = []
    ignored: list[tuple[str, str]] = []
    for folder in folders:
        path = folder / NOTES_FILE_NAME
        try:
            text = _read_small_file(path)
            if text is not None:
                found.append(Notes(str(path), parse_notes(text, NOTES_FILE_NAME)))
        except ConfigError as error:
            ignored.append((str(path), error.what.replace("\n", "; ")))
        except UnicodeDecodeError as error:
            ignored.append((str(path), f"it is not UTF-8 text: {error.reason} at byte {error.start}"))
        except OSError as error:
            ignored.append((str(path), f"it cannot be read: {error.strerror}"))
    return found, ignored


def _read_small_file(path: Path) -> str | None:
    """Return a file's text, None if there is none. A pipe or device in its place is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("it is no file")
        content = file.read(MAX_NOTES_BYTES + 1)
    if len(content) > MAX_NOTES_BYTES:
        raise ConfigError(f"it is larger than {MAX_NOTES_BYTES // 1024} kB")
    return content.decode("utf-8-sig")
