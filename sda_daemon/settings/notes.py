"""Reads the `sda.yaml` files that people keep with their recordings."""

from __future__ import annotations

from pathlib import Path

from sda_daemon.errors import ConfigError
from sda_daemon.settings.rules import Notes
from sda_daemon.settings.source import parse_notes
from sda_daemon.small_files import read_small_file

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
            text = read_small_file(path, MAX_NOTES_BYTES).decode("utf-8-sig")
            found.append(Notes(str(path), parse_notes(text, NOTES_FILE_NAME)))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ConfigError as error:
            ignored.append((str(path), error.what.replace("\n", "; ")))
        except UnicodeDecodeError as error:
            ignored.append((str(path), f"it is not UTF-8 text: {error.reason} at byte {error.start}"))
        except OSError as error:
            ignored.append((str(path), f"it cannot be used: {error.strerror}"))
    return found, ignored
