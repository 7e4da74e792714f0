"""Lists what lies in a watched folder, without opening any file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from fnmatch import translate

from sda_daemon.intake.aside import ASIDE_ENDING, is_aside_folder
from sda_daemon.models.formats import ENDINGS
from sda_daemon.settings.exclusion import Exclusion, identity_of
from sda_daemon.signature import FileSignature

_A_STEP = 100
"""After so many entries of folders a walk can be interrupted."""
TEMPORARY_ENDINGS = (".part", ".tmp", ".temp", ".filepart", ".crdownload", ".partial", ".download", ".swp", "~")
"""Names that programs give to files that they are still writing."""


class CheckpointNames:
    """Which names below a watched folder are checkpoints.

    Args:
        patterns: globs on the file name.
        ignore: globs on the path below the watched folder.
        excluded: folders that are never looked into, such as the library, or the one that done checkpoints are
            moved to; but for those that the watched folder itself lies in.
    """

    def __init__(
        self, patterns: tuple[str, ...], ignore: tuple[str, ...] = (), excluded: str | Sequence[str] = ()
    ) -> None:
        self._excluded = tuple(folder for folder in ([excluded] if isinstance(excluded, str) else excluded) if folder)
        self._seen: tuple[object, ...] = ()
        self._exclusion = Exclusion("", ())
        self._wanted = re.compile("|".join(translate(pattern) for pattern in patterns) or r"(?!)")
        self._ignored = re.compile("|".join(translate(pattern) for pattern in ignore)) if ignore else None

    def matches(self, root: str, path: str) -> bool:
        """Tell whether a path is that of a checkpoint; hidden files, temporary names and models are not."""
        folder, _, name = path.rpartition("/")
        if not self.is_name(name) or self.is_ignored(root, path) or is_hidden(root, folder):
            return False
        exclusion = self.exclusion(root)
        return not exclusion.holds(folder) and not (os.path.islink(path) and exclusion.holds_target(path))  # noqa: PTH114

    def is_name(self, name: str) -> bool:
        """Tell whether a file name is that of a checkpoint."""
        return (
            self._wanted.match(name) is not None
            and name[0] != "."
            and not name.endswith(TEMPORARY_ENDINGS)
            and not name.lower().endswith(ENDINGS)
        )

    def exclusion(self, root: str) -> Exclusion:
        """Return the folders that are never looked into, as they are now."""
        now = (root, *map(identity_of, (root, *self._excluded)))
        if now != self._seen:
            self._seen, self._exclusion = now, Exclusion(root, self._excluded)
        return self._exclusion

    def is_ignored(self, root: str, path: str) -> bool:
        """Tell whether a path is one of those that are never looked at."""
        return self._ignored is not None and self._ignored.match(path[len(root) :].lstrip("/")) is not None


def is_hidden(root: str, folder: str) -> bool:
    """Tell whether a folder below a watched one, or one between the two, is hidden."""
    return "/." in folder[len(root) :]


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
        asides: files under the private names that they have while they are dealt with, or since a crash; likewise.
    """

    def __init__(self, folder: str, root: str, names: CheckpointNames) -> None:
        self.folders = 0
        self.closed: list[str] = []
        self.asides: list[str] = []
        self._folder = folder
        self._root = root
        self._names = names

    def __iter__(self) -> Iterator[tuple[str, FileSignature]]:
        return (found for found in self.steps() if found is not None)

    def steps(self) -> Iterator[tuple[str, FileSignature] | None]:
        """Yield what iterating does, and None now and then where there is nothing but other things."""
        passed_over = 0
        names, root = self._names, self._root
        exclusion = names.exclusion(root)
        is_place = not is_hidden(root, self._folder) and not exclusion.holds(self._folder)
        waiting = [(self._folder, is_place)]
        while waiting:
            here, is_place = waiting.pop()
            try:
                entries = os.scandir(here)
            except PermissionError:
                self.closed.append(here)
                continue
            except OSError:
                continue
            self.folders += 1
            with entries:
                for entry in entries:
                    passed_over += 1
                    if passed_over % _A_STEP == 0:
                        yield None
                    try:
                        name = entry.name
                        if entry.is_dir(follow_symlinks=False):
                            if is_place and is_aside_folder(name):
                                self.asides += _files_in(entry.path)
                            inside = is_place and name[0] != "." and not exclusion.has(entry.path)
                            waiting.append((entry.path, inside))
                        elif not is_place:
                            continue
                        elif name[0] == ".":
                            if name.endswith(ASIDE_ENDING):
                                self.asides.append(entry.path)
                        elif names.is_name(name) and not names.is_ignored(root, entry.path):
                            status = entry.stat()
                            if not stat.S_ISREG(status.st_mode):
                                continue
                            if entry.is_symlink() and exclusion.holds_target(entry.path):
                                continue
                            yield entry.path, FileSignature.of(status)
                    except PermissionError:
                        if here not in self.closed[-1:]:
                            self.closed.append(here)
                    except OSError:
                        continue


def _files_in(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []


def find_asides(folder: str) -> list[str]:
    """Return all files below a folder that are under a private name."""
    scan = CheckpointScan(folder, folder, CheckpointNames(()))
    for _ in scan:
        pass
    return scan.asides
