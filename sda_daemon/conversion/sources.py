"""What becomes of a checkpoint once its model is safely in the library: deleted or moved, where that is wanted.

It is taken aside first (see `aside`), so that whatever takes its name meanwhile is neither deleted nor moved. In each
step the sidecar goes first, and the checkpoint only when all that is to remain of it is on the disk: a crash in
between leaves a checkpoint under its private name, which gets its old name back at the next look. Done again, the
move finds what it had finished before and only removes the original.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sda_daemon.conversion.links import PART_ENDING, lead, links_to, make_link
from sda_daemon.files import begin_writeback, fsync_folder, rename_new
from sda_daemon.intake.aside import (
    SIDECAR_ENDING,
    Aside,
    SourceChangedError,
    free_names,
    is_same_file,
    link_target,
    sidecar_of,
    taken_aside,
)
from sda_daemon.os_errors import takes_nothing
from sda_daemon.signature import FileSignature, signature_at

__all__ = ["PART_ENDING", "SIDECAR_ENDING", "delete_source", "destination_of", "move_source", "sweep_parts"]

_CHUNK_BYTES = 4 << 20
Stopping = Callable[[], bool]


class DestinationError(OSError):
    """The folder that something is moved to takes nothing at the moment: it is full, or read-only."""


@contextlib.contextmanager
def _at_destination() -> Iterator[None]:
    """Tell what is wrong with the destination from what is wrong with one checkpoint."""
    try:
        yield
    except OSError as error:
        if not takes_nothing(error):
            raise
        raise DestinationError(error.errno, error.strerror, error.filename, None, error.filename2) from error


def _never() -> bool:
    return False


def delete_source(path: Path, signature: FileSignature | None = None) -> None:
    """Delete a checkpoint and its sidecar; of a symbolic link, the link.

    Args:
        path: the checkpoint.
        signature: of the content that may be deleted; by default, of what it is now.

    Raises:
        SourceChangedError: it is another content, which stays.
        OSError: it cannot be deleted; it is still where it was.
    """
    with taken_aside(path, signature or _signature_of(path)) as aside:
        aside.remove()


def move_source(
    path: Path,
    root: Path,
    move_to: Path,
    signature: FileSignature | None = None,
    is_stopping: Stopping = _never,
    links: Iterable[Path] = (),
) -> Path:
    """Move a checkpoint and its sidecar below `move_to`, keeping the path below `root`; return its new place.

    A file that is there already is never replaced: the moved one gets a number. A symbolic link is made anew, so
    that it leads to where it led. Links to what is moved, and to its sidecar, are led to the new places: those in its
    folder, in the folders above up to `root`, and in the folders that these become below `move_to`. To another file
    system it is copied, and the copy is on the disk and has its name before the original goes.

    Args:
        path: the checkpoint.
        root: the watched folder.
        move_to: the folder for what is done.
        signature: of the content that may be moved; by default, of what it is now.
        is_stopping: asked while it is copied; once it is true, everything is undone.
        links: where further links to it may be.

    Raises:
        SourceChangedError: it is another content, which stays.
        InterruptedError: it was asked to stop; the checkpoint is where it was.
        DestinationError: nothing can be moved there now; likewise.
        OSError: it cannot be moved; likewise.
    """
    folder = destination_of(path, root, move_to)
    wanted = signature or _signature_of(path)
    if signature_at(str(path)) != wanted:
        raise SourceChangedError(path)
    with _at_destination():
        made = _make_folders(folder)
    around = {*_up_to(path.parent, root), *_up_to(folder, move_to)}
    with taken_aside(path, wanted) as aside, _at_destination():
        beside = {sidecar_of(link) for link in links}
        to_sidecar = links_to(sidecar_of(path), around, beside) if aside.sidecar is not None else []
        return _Move(aside, folder, made, is_stopping, links_to(path, around, links), to_sidecar).run()


def _up_to(folder: Path, top: Path) -> list[Path]:
    """Return a folder and those above it, up to another one; only itself if it does not lie in that."""
    if not folder.is_relative_to(top):
        return [folder]
    return [path for path in (folder, *folder.parents) if path.is_relative_to(top)]


def destination_of(path: Path, root: Path, move_to: Path) -> Path:
    """Return the folder that a checkpoint is moved to."""
    relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return (move_to / relative).parent


def _signature_of(path: Path) -> FileSignature:
    found = signature_at(str(path))
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return found


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the ones that were not there, the outermost first."""
    made: list[Path] = []
    for path in (folder, *folder.parents):
        if path.is_dir():
            break
        made.insert(0, path)
    folder.mkdir(parents=True, exist_ok=True)
    return made


@dataclass(frozen=True, slots=True)
class _Item:
    """A file on its way: where it is aside, where it is to lie, and what its copy is called until it is whole."""

    source: Path
    target: Path
    part: Path


def _take_back(item: _Item) -> None:
    """Undo the placing of a file."""
    if os.path.lexists(item.source):
        item.target.unlink(missing_ok=True)  # a copy, or a second link
    else:
        rename_new(item.target, item.source)


class _Move:
    """The move of one checkpoint that is aside.

    Args:
        aside: the checkpoint.
        folder: where to.
        made: those of the folders to there that are new.
        is_stopping: asked while it is copied.
        links: those that lead to it: they are never to lead to nothing once it has gone.
        sidecar_links: those that lead to its sidecar.
    """

    def __init__(
        self,
        aside: Aside,
        folder: Path,
        made: list[Path],
        is_stopping: Stopping,
        links: Sequence[Path] = (),
        sidecar_links: Sequence[Path] = (),
    ) -> None:
        self._aside = aside
        self._folder = folder
        self._made = made
        self._is_stopping = is_stopping
        self._part = folder / f".{aside.token}{PART_ENDING}"
        self._sidecar_part = folder / f".{aside.token}{SIDECAR_ENDING}{PART_ENDING}"
        self._copied = False
        self._links = links
        self._sidecar_links = sidecar_links
        self._placed: list[_Item] = []

    def run(self) -> Path:
        """Place sidecar and checkpoint, make sure that they are on the disk, remove what they were copied from."""
        try:
            target = self._place_both()
        finally:
            for part in (self._part, self._sidecar_part):
                part.unlink(missing_ok=True)
        if self._copied:
            for folder in {self._folder, *(path.parent for path in self._made)}:
                fsync_folder(folder)
        try:
            self._lead_all(target)
        except OSError:
            for item in reversed(self._placed):
                _take_back(item)
            raise
        self._remove()
        return target

    def _lead_all(self, target: Path) -> None:
        """Have all links lead to the new places, or none.

        Raises:
            OSError: one of them cannot be changed; all are as before.
        """
        original, token = self._aside.original, self._aside.token
        lead(self._links, original, target, token)
        try:
            lead(self._sidecar_links, sidecar_of(original), sidecar_of(target), token)
        except OSError:
            lead(self._links, target, original, token)
            raise

    def _place_both(self) -> Path:
        """Place both under the first name that is free for both, or that has them already."""
        aside = self._aside
        for target in free_names(self._folder / aside.original.name):
            items = [_Item(aside.private, target, self._part)]
            if aside.sidecar is not None:
                items.insert(0, _Item(aside.sidecar, sidecar_of(target), self._sidecar_part))
            wanted = [item for item in items if not self._is_there(item)]
            if not any(os.path.lexists(item.target) for item in wanted) and self._place_all(wanted):
                self._placed = wanted
                return target
        raise FileExistsError(errno.EEXIST, "every name for it is taken", str(self._folder))

    def _place_all(self, items: list[_Item]) -> bool:
        """Place files; False, and all is as before, if one of the names has just been taken."""
        with contextlib.ExitStack() as undo:
            for item in items:
                try:
                    self._place(item)
                except FileExistsError:
                    return False
                undo.callback(_take_back, item)
            undo.pop_all()
        return True

    def _is_there(self, item: _Item) -> bool:
        """Tell whether a file is at its place already, because a crash came after that."""
        source, target = item.source, item.target
        if is_same_file(source, target):
            return True
        if source.is_symlink() or target.is_symlink():
            if not (source.is_symlink() and target.is_symlink()):
                return False
            goal = link_target(source, self._aside.original.parent)
            return os.path.realpath(goal) == os.path.realpath(target)
        try:
            one, other = source.stat(), target.stat()
            if not stat.S_ISREG(other.st_mode) or (one.st_size, one.st_mtime_ns) != (other.st_size, other.st_mtime_ns):
                return False
            if not _same_bytes(source, target, self._is_stopping):
                return False
            _fsync_file(target)
        except FileNotFoundError:
            return False
        self._copied = True
        return True

    def _place(self, item: _Item) -> None:
        """Bring a file to its place, by renaming or copying."""
        if item.source.is_symlink():
            make_link(item.source, self._aside.original.parent, item.target)
            return
        try:
            self._rename(item)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
        if not item.part.exists():  # it is, where the name before this one was taken
            sweep_parts(self._folder)
            _copy(item.source, item.part, self._is_stopping)
        rename_new(item.part, item.target)
        self._copied = True

    def _rename(self, item: _Item) -> None:
        """Give a file its new name; where links lead to it, beside the private one, until they lead to the new one.

        A crash in between would leave them leading to nothing, and no one would know where to.
        """
        if self._links or self._sidecar_links:
            try:
                item.target.hardlink_to(item.source)
            except OSError as error:
                if error.errno in (errno.EXDEV, errno.EEXIST):
                    raise
            else:
                return
        rename_new(item.source, item.target)

    def _remove(self) -> None:
        """Remove what was copied; what was renamed is no longer there."""
        self._aside.remove()


def _same_bytes(left: Path, right: Path, is_stopping: Stopping) -> bool:
    with left.open("rb") as one, right.open("rb") as other:
        while chunk := one.read(_CHUNK_BYTES):
            _stop_if(is_stopping)
            if chunk != other.read(_CHUNK_BYTES):
                return False
        return not other.read(1)


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stop_if(is_stopping: Stopping) -> None:
    if is_stopping():
        raise InterruptedError(errno.EINTR, "the daemon is stopping; it is moved at the next start")


def _copy(source: Path, part: Path, is_stopping: Stopping) -> None:
    """Copy a file durably, with its times, mode, owner and attributes as far as that is possible.

    Raises:
        OSError: it cannot be copied; nothing of the copy is left.
    """
    with source.open("rb") as reader:
        before = os.fstat(reader.fileno())
        free_bytes = shutil.disk_usage(part.parent).free
        if before.st_size > free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part.parent))
        try:
            with part.open("xb") as writer:
                with contextlib.suppress(OSError):
                    fcntl.flock(writer.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                while chunk := reader.read(_CHUNK_BYTES):
                    _stop_if(is_stopping)
                    writer.write(chunk)
                writer.flush()
                with contextlib.suppress(OSError):
                    os.fchown(writer.fileno(), before.st_uid, before.st_gid)
                shutil.copystat(source, part)
                after = os.fstat(reader.fileno())
                copied = os.fstat(writer.fileno()).st_size
                if (after.st_size, after.st_mtime_ns) != (
                    before.st_size,
                    before.st_mtime_ns,
                ) or copied != after.st_size:
                    raise OSError(errno.EBUSY, "it changed while it was copied", str(source))
                os.fsync(writer.fileno())
                begin_writeback(writer.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def sweep_parts(folder: Path) -> int:
    """Remove copies that a crash left unfinished in a folder; count them. Those that someone is writing stay."""
    removed = 0
    for path in _parts_in(folder):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
            finally:
                os.close(descriptor)
    return removed


def _parts_in(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(PART_ENDING):
                yield Path(entry.path)
