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
        excluded: a folder that is never looked into, such as the one that done checkpoints are moved to.
    """

    def __init__(self, patterns: tuple[str, ...], ignore: tuple[str, ...] = (), excluded: str = "") -> None:
        self._excluded = excluded.rstrip("/") + "/" if excluded else ""
        self._wanted = re.compile("|".join(translate(pattern) for pattern in patterns) or r"(?!)")
        self._ignored = re.compile("|".join(translate(pattern) for pattern in ignore)) if ignore else None

    def matches(self, root: str, path: str) -> bool:
        """Tell whether a path is that of a checkpoint; hidden files and temporary names are not."""
        folder, _, name = path.rpartition("/")
        return self.is_name(name) and self.is_place(root, folder) and not self.is_ignored(root, path)

    def is_name(self, name: str) -> bool:
        """Tell whether a file name is that of a checkpoint."""
        return self._wanted.match(name) is not None and name[0] != "." and not name.endswith(TEMPORARY_ENDINGS)

    def is_place(self, root: str, folder: str) -> bool:
        """Tell whether checkpoints are looked for in a folder: neither it nor one above it is hidden or excluded."""
        if self._excluded and f"{folder}/".startswith(self._excluded):
            return False
        return "/." not in folder[len(root) :]

    def is_ignored(self, root: str, path: str) -> bool:
        """Tell whether a path is one of those that are never looked at."""
        return self._ignored is not None and self._ignored.match(path[len(root) :].lstrip("/")) is not None


class CheckpointScan:
    """Walks over every checkpoint below a folder: iterating yields path and signature.

    Links to files are followed, links to folders are not. What cannot be read or vanishes is passed over.

    Args:
        folder: where to begin.
        root: the watched folder that it lies in.
        names: what counts as a checkpoint.

    Attributes:
        folders: how many folders there were; known when the walk is over.
        closed: folders that may not be read or entered; likewise.
    """

    def __init__(self, folder: str, root: str, names: CheckpointNames) -> None:
        self.folders = 0
        self.closed: list[str] = []
        self._folder = folder
        self._root = root
        self._names = names

    def __iter__(self) -> Iterator[tuple[str, FileSignature]]:
        names, root = self._names, self._root
        waiting = [self._folder]
        while waiting:
            here = waiting.pop()
            try:
                entries = os.scandir(here)
            except PermissionError:
                self.closed.append(here)
                continue
            except OSError:
                continue
            self.folders += 1
            is_place = names.is_place(root, here)
            with entries:
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif is_place and names.is_name(entry.name) and not names.is_ignored(root, entry.path):
                            status = entry.stat()
                            if stat.S_ISREG(status.st_mode):
                                yield entry.path, FileSignature.of(status)
                    except PermissionError:
                        if here not in self.closed[-1:]:
                            self.closed.append(here)
                    except OSError:
                        continue
