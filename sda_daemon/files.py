"""Writing files so that a crash at any moment leaves the old content or the new, never a mixture.

The recipe: write in the same file system, flush, fsync, rename, fsync the folder. Anything unfinished
lives in a *work folder* (`.sda-work-…`) that its owner holds an flock on: whoever finds one that is not
locked knows that its owner is dead and may sweep it away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

WORK_FOLDER_PREFIX = ".sda-work-"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def read_small_file(path: Path, max_bytes: int) -> bytes:
    """Return a file's content. A pipe or device in its place is not waited for.

    Raises:
        OSError: it is missing, no regular file, larger than `max_bytes`, or cannot be read.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 1024} kB", str(path))
    return content


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


def write_atomic(path: Path, chunks: Iterable[bytes], backup: Path | None = None) -> os.stat_result:
    """Replace `path` by the concatenated `chunks`; keep its previous content as `backup` if given.

    On any failure the temporary file is gone and `path` is what it was.

    Returns:
        The stat result of the new file.

    Raises:
        OSError: the file cannot be written.

    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fchmod(file.fileno(), _mode_for(path))
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        if backup is not None:
            _keep_backup(path, backup)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
    return status


def _mode_for(path: Path) -> int:
    """Permission bits of the file that is replaced, or what the umask gives a new one."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _keep_backup(path: Path, backup: Path) -> None:
    """Make `backup` the current content of `path`, atomically, by a hard link where there are such."""
    descriptor, name = tempfile.mkstemp(prefix=f".{backup.name}.", suffix=".tmp", dir=backup.parent)
    os.close(descriptor)
    temporary = Path(name)
    temporary.unlink()
    try:
        try:
            os.link(path, temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copy2(path, temporary)
        temporary.replace(backup)
    except FileNotFoundError:
        return  # nothing there yet to keep
    finally:
        temporary.unlink(missing_ok=True)


def sweep_temporary(path: Path) -> int:
    """Remove what crashed writers of `path` left behind. Call it only while no one can be writing."""
    prefixes = (f".{path.name}.", f".{path.name}.bak.")
    removed = 0
    for entry in os.scandir(path.parent):
        if entry.name.startswith(prefixes) and entry.name.endswith(".tmp") and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)
                removed += 1
    return removed


def publish_new(temporary: Path, folder: Path, names: Iterable[str]) -> Path:
    """Give a finished temporary file the first free of `names` in `folder`, never replacing anything.

    The caller makes it durable with `fsync_folder`.

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
            temporary.replace(target)
            return target
        temporary.unlink()
        return target
    raise FileExistsError(errno.EEXIST, "every name for this model is taken", str(folder))


def _claim_name(target: Path) -> bool:
    """Take a name on a file system without hard links, by creating an empty file exclusively."""
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


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
        path = Path(tempfile.mkdtemp(prefix=WORK_FOLDER_PREFIX, dir=folder))
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
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
        if not entry.name.startswith(WORK_FOLDER_PREFIX) or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_work_folder(Path(entry.path))
            removed += 1
        except OSError:
            continue  # its owner lives, or locks do not work here
        finally:
            os.close(descriptor)
    return removed


def _remove_work_folder(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(path):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
        path.rmdir()
