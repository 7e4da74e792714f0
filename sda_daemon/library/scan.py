"""What lies in the models folder, and what was learned of each file, kept so that nothing is read twice.

The knowledge lives in a small hidden file beside the index. It is a cache: without it the next repair
only takes longer.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sda_daemon.files import write_atomic
from sda_daemon.library.content import LINK_REASON as LINK_REASON  # noqa: PLC0414 - repair takes it from here
from sda_daemon.library.entry import is_bare_model_name
from sda_daemon.models.formats import has_model_ending
from sda_daemon.signature import FileSignature
from sda_daemon.small_files import read_small_file

SCAN_FILE_NAME = ".model_library.scan.json"
_MAX_BYTES = 2**28
UNSEEN = FileSignature(-1, 0, 0)
"""Of a file that is there and that the system tells nothing of: it is no file's signature."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one content of a file.

    Attributes:
        signature: which content.
        reason: why it is no model; empty if it is one.
        model_id: the id of the entry that it agrees with.
        said: what it says of itself, see `library.said`; empty if it was not read.
    """

    signature: FileSignature
    reason: str = ""
    model_id: str = ""
    said: str = ""


def scan_models(folder: Path) -> dict[str, FileSignature]:
    """Return the regular model files directly inside the folder, by name.

    Symbolic links are not followed and not listed; hidden files are unfinished ones or none of ours. A file that cannot
    be looked at (a bad sector, say) is listed as `UNSEEN`: it is there all the same.

    Raises:
        OSError: the folder cannot be listed.
    """
    found: dict[str, FileSignature] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if not is_bare_model_name(name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError:
                found[name] = UNSEEN
                continue
            if stat.S_ISREG(status.st_mode):
                found[name] = FileSignature.of(status)
    return found


def find_links(folder: Path) -> frozenset[str]:
    """Return the names of model files that are symbolic links: they are not followed, wherever they lead.

    Empty where the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return frozenset(item.name for item in entries if item.is_symlink() and is_bare_model_name(item.name))
    except OSError:
        return frozenset()


def has_models(folder: Path) -> bool:
    """Tell whether there is a model in a folder, of whatever generation; an empty index made by a command is none."""
    try:
        with os.scandir(folder) as entries:
            return any(has_model_ending(entry.name) for entry in entries)
    except OSError:
        return False


def load_known(folder: Path) -> dict[str, Known]:
    """Read the cache; an unreadable one is as good as none."""
    try:
        raw = json.loads(read_small_file(folder / SCAN_FILE_NAME, _MAX_BYTES))
        return {
            name: Known(FileSignature(int(values[0]), int(values[1]), int(values[2])), *map(str, values[3:6]))
            for name, values in raw["files"].items()
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def save_known(folder: Path, known: Mapping[str, Known]) -> None:
    """Write the cache; not durably, because it is as good as none if it cannot be read.

    Raises:
        OSError: it cannot be written.
    """
    files = {
        name: [signature.size_bytes, signature.mtime_ns, signature.inode, item.reason, item.model_id, item.said]
        for name, item in known.items()
        for signature in [item.signature]
    }
    write_atomic(folder / SCAN_FILE_NAME, [json.dumps({"version": 2, "files": files}).encode()], durable=False)
