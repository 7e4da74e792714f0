"""Lists what lies in a watched folder, without opening any file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from fnmatch import translate

from sda_daemon.signature import FileSignature

TEMPORARY_ENDINGS = (".part", ".tmp", ".temp", ".filepart", ".crdownload", ".partial", ".download", ".swp", "~")
"""Names that programs give to files that they are still writing."""


class CheckpointNames:
    """Which names below a watched folder are checkpoints.

    Args:
        patterns: globs on the file name.
        ignore: globs on the path below the watched folder.

    """

    def __init__(self, patterns: tuple[str, ...], ignore: tuple[str, ...]) -> None:
        self._wanted = re.compile("|".join(translate(pattern) for pattern in patterns) or r"(?!)")
        self._ignored = re.compile("|".join(translate(pattern) for pattern in ignore)) if ignore else None

    def matches(self, root: str, path: str) -> bool:
        """Tell whether a path is that of a checkpoint; hidden files and temporary names are not."""
        name = path.rpartition("/")[2]
        if name.startswith(".") or name.endswith(TEMPORARY_ENDINGS) or not self._wanted.match(name):
            return False
        relative = path[len(root) :].lstrip("/")
        if any(part.startswith(".") for part in relative.split("/")[:-1]):
            return False
        return self._ignored is None or not self._ignored.match(relative)


def scan_checkpoints(folder: str, root: str, names: CheckpointNames) -> Iterator[tuple[str, FileSignature]]:
    """Yield path and signature of every checkpoint below `folder`, which lies in the watched `root`.

    Links to files are followed, links to folders are not. What cannot be read or vanishes is passed over.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = os.scandir(here)
        except OSError:
            continue
        with entries:
            for entry in entries:
                name = entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if not name.startswith("."):
                            waiting.append(entry.path)
                    elif names.matches(root, entry.path):
                        status = entry.stat()
                        if stat.S_ISREG(status.st_mode):
                            yield entry.path, FileSignature.of(status)
                except OSError:
                    continue
