"""Writing files so that a crash at any moment leaves the old content or the new, never a mixture.

The recipe: write in the same file system, flush, fsync, rename, fsync the folder. Anything unfinished
lives in a *work folder* (`.sda-work-…`) that its owner holds an flock on: whoever finds one that is not
locked knows that its owner is dead and may sweep it away.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sda_daemon.access import Access, place_access

TRASH_FOLDER = ".trash"
"""Where deleted models are kept, inside the models folder: hidden, so that neither the daemon nor the training
application looks there."""
WORK_FOLDER_PREFIX = ".sda-work-"
TEMPORARY_ENDING = ".tmp"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_ABANDONED_AFTER_S = 24 * 3600.0
"""Where file systems know no locks, a work folder that no one has touched for so long has no owner."""
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NO_RENAMEAT2 = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of what is at a path, links followed; None if nothing is there.

    pathlib's `exists`, `is_file` and `is_dir` take what lies behind a closed folder for missing in some versions of
    Python and raise in others; here that is an error in all of them.

    Raises:
        OSError: it cannot be told, because a folder on the way may not be entered, say.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_folder(path: Path) -> bool:
    """Tell whether a folder is at a path; see `status_of`, also for what is raised."""
    status = status_of(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def is_file(path: Path) -> bool:
    """Tell whether a regular file is at a path; see `status_of`, also for what is raised."""
    status = status_of(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def says_gone(error: OSError) -> bool:
    """Tell whether an error means that there is no such file: also a name that is too long for one is no file's."""
    return error.errno in (errno.ENOENT, errno.ENAMETOOLONG)


def begin_writeback(descriptor: int) -> None:
    """Let the kernel begin to write a file out, and not keep of it in memory what is written already.

    A backlog of large files must not push what people work with out of the kernel's cache.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # it is only advice
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def fsync_large(path: Path) -> None:
    """Make a large file's content durable, and do not keep it in memory.

    Raises:
        OSError: it cannot be written; what has been written of it may be lost.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # some network file systems sync only what one may write
    try:
        os.fsync(descriptor)
        begin_writeback(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Make renames and links in `folder` durable; file systems that cannot do this are let be."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def write_atomic(
    path: Path,
    chunks: Iterable[bytes],
    backup: Path | None = None,
    *,
    durable: bool = True,
    access: Access | None = None,
) -> os.stat_result:
    """Replace `path` by the concatenated `chunks`; keep its previous content as `backup` if given.

    On any failure the temporary file is gone and `path` is what it was. What is not `durable` may be found empty or
    damaged after a power failure, but does not wait for the disk. Without `access` the file has that of the one that it
    replaces, or what is usual in its folder.

    Returns:
        The stat result of the new file.

    Raises:
        OSError: the file cannot be written.
    """
    temporary, descriptor = _create_temporary(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            place_access(file.fileno(), path, access)
            if durable:
                os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        if backup is not None:
            _keep_backup(path, backup, access)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)
    return status


def _temporary_name(path: Path) -> Path:
    # One dot, also for a file that is hidden itself: sweepers go by the beginning of the name.
    return path.with_name(f".{fitting(path.name.lstrip('.'))}.{secrets.token_hex(6)}{TEMPORARY_ENDING}")


def fitting(stem: str) -> str:
    """Return as much of a file's name as leaves room for what is put before and behind it."""
    if len(os.fsencode(stem)) <= _LONGEST_STEM_BYTES:
        return stem
    return os.fsencode(stem)[:_LONGEST_STEM_BYTES].decode("utf-8", "ignore")


_LONGEST_STEM_BYTES = 180
"""Of the 255 bytes that a name may have."""


def _create_temporary(path: Path) -> tuple[Path, int]:
    """Create a file beside `path` that no one else has; its permissions are what the umask gives.

    Raises:
        OSError: it cannot be created; the error names `path`, which is what was to be written.
    """
    while True:
        temporary = _temporary_name(path)
        try:
            return temporary, os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)
            raise


def _keep_backup(path: Path, backup: Path, access: Access | None) -> None:
    """Make `backup` the current content of `path`, atomically."""
    temporary = _temporary_name(backup)
    try:
        link_or_copy(path, temporary)
        if access is not None:
            with contextlib.suppress(OSError):  # a link to another user's file: it stays as it is
                os.chown(temporary, -1, access.gid)
                temporary.chmod(access.mode)
        temporary.replace(backup)
    except FileNotFoundError:
        return  # nothing there yet to keep
    finally:
        temporary.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link where there are such, else a copy.

    Raises:
        FileExistsError: `target` is there already.
        OSError: neither is possible.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with source.open("rb") as reader, target.open("xb") as writer:
            shutil.copyfileobj(reader, writer)
        shutil.copystat(source, target)


def find_temporary(folder: Path, prefix: str) -> list[Path]:
    """Return the temporary files that writers of files whose names begin with `prefix` have (or crashed ones left).

    Raises:
        OSError: the folder cannot be listed.
    """
    return [
        folder / name
        for name in os.listdir(folder)
        if name.startswith(f".{prefix}") and name.endswith(TEMPORARY_ENDING)
    ]


def sweep_temporary(folder: Path, prefix: str) -> int:
    """Remove what `find_temporary` finds, and count it. Call it only while no one can be writing."""
    removed = 0
    for path in find_temporary(folder, prefix):
        with contextlib.suppress(OSError):  # gone already, a folder, another user's: the others are swept all the same
            path.unlink()
            removed += 1
    return removed


def publish_new(temporary: Path, folder: Path, names: Iterable[str]) -> Path:
    """Give a finished temporary file the first free of `names` in `folder`, never replacing anything.

    The caller makes it durable with `fsync_folder`. On failure the file is where it was, and nothing has the new name.

    Raises:
        FileExistsError: all names are taken.
        OSError: the file system refuses.
    """
    for name in names:
        target = folder / name
        try:
            os.link(temporary, target)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not _claim_name(target):
                continue
            try:
                temporary.replace(target)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            return target
        try:
            temporary.unlink(missing_ok=True)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return target
    raise FileExistsError(errno.EEXIST, "every name for this model is taken", str(folder))


def _claim_name(target: Path) -> bool:
    """Take a name on a file system without hard links, by creating an empty file exclusively."""
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def rename_new(source: Path, target: Path) -> None:
    """Give a file or link another name in its file system, never replacing anything.

    Raises:
        FileExistsError: there is something of that name already.
        OSError: it cannot be renamed (EXDEV: that is another file system); it has its old name.
    """
    renameat2 = _renameat2()
    if renameat2 is not None:
        if not renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE):
            return
        number = ctypes.get_errno()
        if number not in _NO_RENAMEAT2:
            raise OSError(number, os.strerror(number), str(source), None, str(target))
    rename_by_link(source, target)


@lru_cache(maxsize=1)
def _renameat2() -> Any:
    """Return the kernel's rename that can be told not to replace anything; None where libc has none."""
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def rename_by_link(source: Path, target: Path) -> None:
    """Do what `rename_new` does where the kernel or the file system cannot: by a second name, or by claiming the name.

    Raises:
        OSError: see `rename_new`.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS or error.errno == errno.EXDEV:
            raise
        if source.is_dir() and not source.is_symlink():
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        elif not _claim_name(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        source.replace(target)
    else:
        source.unlink()


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Make a hidden folder inside `folder` for unfinished files; gone at exit, swept after a crash.

    Raises:
        OSError: it cannot be made.
    """
    path, descriptor = open_work_folder(folder)
    try:
        yield path
    finally:
        close_work_folder(path, descriptor)


def open_work_folder(folder: Path) -> tuple[Path, int]:
    """Make and lock a work folder; return it with the descriptor whose closing releases it."""
    while True:
        try:
            path = Path(tempfile.mkdtemp(prefix=WORK_FOLDER_PREFIX, dir=folder))
        except OSError as error:
            error.filename = str(folder)  # what the caller knows of; the name inside was made up
            raise
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # a sweeper was quicker than we
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # a sweeper was quicker than our lock
        except OSError:
            return path, descriptor  # no locks on this file system: sweeping goes by age there
        if path.exists():
            return path, descriptor
        os.close(descriptor)


def close_work_folder(path: Path, descriptor: int) -> None:
    """Remove a work folder of ours with all that is still in it."""
    _remove_work_folder(path)
    os.close(descriptor)


def sweep_work_folders(folder: Path) -> int:
    """Remove the work folders of processes that are no more; return how many there were."""
    removed = 0
    for entry in os.scandir(folder):
        if not entry.name.startswith(WORK_FOLDER_PREFIX):
            continue
        try:
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # not a folder, gone already, or another user's
            continue
        try:
            if _is_abandoned(descriptor):
                _remove_work_folder(Path(entry.path))
                removed += 1
        finally:
            os.close(descriptor)
    return removed


def _is_abandoned(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS and time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_AFTER_S
    return True


def _remove_work_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
