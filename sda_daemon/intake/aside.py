"""Taking a checkpoint aside: from then on it is known by its content, whatever takes its name.

A file that is to be deleted or moved first gets a private name in its own folder, `.NAME.TOKEN.sda-aside`, hidden and
with an ending that no one looks for. What it is can then be checked without anyone putting another in its place, and
a crash leaves something that tells by its own name what it was called. Whoever holds a lock (flock) on such a file is
at work on it; one without a lock was abandoned, and is put back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sda_daemon.files import rename_new
from sda_daemon.intake.probe import has_writer
from sda_daemon.signature import FileSignature, signature_at

SIDECAR_ENDING = ".meta.json"
ASIDE_ENDING = ".sda-aside"
_NAME = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}" + re.escape(ASIDE_ENDING), re.DOTALL)
_FOLDER = re.compile(r"\.[0-9a-f]{8}" + re.escape(ASIDE_ENDING))
_EXTRA_BYTES = len(f"..01234567{ASIDE_ENDING}")
_LONGEST_NAME = 255


class SourceChangedError(Exception):
    """Under the name of a checkpoint was another content than the one that was to be dealt with.

    Attributes:
        back_as: where that content is now.
    """

    def __init__(self, back_as: Path) -> None:
        super().__init__(str(back_as))
        self.back_as = back_as


@dataclass(slots=True)
class Aside:
    """A checkpoint under its private name.

    Attributes:
        original: the path that it had.
        private: the path that it has.
        token: what tells this one from all others.
        sidecar: the private path of its sidecar, if that was there.
        descriptor: of the open file, which holds the lock; None where there is none.
    """

    original: Path
    private: Path
    token: str
    sidecar: Path | None = None
    descriptor: int | None = None

    def lock(self) -> bool:
        """Lock what has the private name; False if someone else has locked it. A link stays without a lock.

        Raises:
            OSError: it is no more, or cannot be opened.
        """
        self.descriptor = _opened(self.private)
        return self.descriptor is None or _lock(self.descriptor)

    def take_sidecar(self) -> None:
        """Give the sidecar its private name.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be renamed.
        """
        place = sidecar_of(self.original)
        private = _private(place, self.token, self.private.parent)
        rename_new(place, private)
        self.sidecar = private

    def pop_sidecar(self) -> Path | None:
        """Return the private path of the sidecar, which does not belong to this one from now on."""
        sidecar, self.sidecar = self.sidecar, None
        return sidecar

    def remove(self) -> None:
        """Remove what is still under the private names, the sidecar first.

        Raises:
            OSError: it cannot be removed.
        """
        if self.sidecar is not None:
            self.sidecar.unlink(missing_ok=True)
            self.sidecar = None
        self.private.unlink(missing_ok=True)

    def let_go(self) -> None:
        """Release the lock, and remove the folder that a long name needed."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        if self.private.parent != self.original.parent:
            with contextlib.suppress(OSError):
                self.private.parent.rmdir()


def sidecar_of(path: Path) -> Path:
    """Return the path of a checkpoint's sidecar."""
    return path.with_name(path.name + SIDECAR_ENDING)


@contextlib.contextmanager
def taken_aside(path: Path, signature: FileSignature) -> Iterator[Aside]:
    """Take a checkpoint and its sidecar aside, make sure that it is the right one, and work on it.

    If anything goes wrong, in here or in the body, what is still aside is put back, never over anything.

    Raises:
        SourceChangedError: it is another content, or a program is writing it.
        OSError: it cannot be taken aside; it is where it was.
    """
    if signature_at(str(path)) != signature:
        raise SourceChangedError(path)
    aside = _prepare(path)
    try:
        # The sidecar first: programs write it after the checkpoint, so that it belongs to this one or to one that is
        # found to be another.
        _take_sidecar(aside)
        take(aside)
        _check(aside, signature)
        yield aside
    except _OtherContentError as error:
        raise SourceChangedError(put_back(aside, is_same=False)) from error
    except BaseException:
        put_back(aside)
        raise
    finally:
        aside.let_go()


class _OtherContentError(Exception):
    """Never leaves this module."""


def _prepare(path: Path) -> Aside:
    """Choose a private name."""
    token = secrets.token_hex(4)
    if len(os.fsencode(sidecar_of(path).name)) + _EXTRA_BYTES <= _longest_name(path.parent):
        return Aside(path, _private(path, token, path.parent), token)
    folder = path.with_name(f".{token}{ASIDE_ENDING}")
    folder.mkdir(mode=0o700)
    return Aside(path, _private(path, token, folder), token)


def take(aside: Aside) -> None:
    """Give a checkpoint its private name and lock it.

    Raises:
        OSError: it cannot be renamed.
    """
    rename_new(aside.original, aside.private)
    with contextlib.suppress(OSError):
        aside.lock()


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return _LONGEST_NAME


def _check(aside: Aside, signature: FileSignature) -> None:
    """Make sure that what was taken is what was meant, and that no program has it open for writing."""
    private = aside.private
    found = signature_at(str(link_target(private, aside.original.parent) if private.is_symlink() else private))
    if found != signature:
        raise _OtherContentError
    if aside.descriptor is not None and has_writer(aside.descriptor):
        raise _OtherContentError


def link_target(link: Path, folder: Path) -> Path:
    """Return where a link leads to that lay in a folder, without following it further."""
    return Path(os.path.realpath(folder)) / link.readlink()


def _take_sidecar(aside: Aside) -> None:
    """Take the sidecar aside, if there is one."""
    if _lstat(sidecar_of(aside.original)) is not None:
        with contextlib.suppress(FileNotFoundError):
            aside.take_sidecar()


def _private(path: Path, token: str, folder: Path) -> Path:
    """Return the private path of a file; the folder is its own, or the one that long names need."""
    return folder / (path.name if folder != path.parent else f".{path.name}.{token}{ASIDE_ENDING}")


def _lstat(path: Path) -> os.stat_result | None:
    """Return what a file or link is; None for folders and other things, and where there is nothing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) else None


# --- back again -----------------------------------------------------------------------------------


def put_back(aside: Aside, *, is_same: bool = True) -> Path:
    """Give a checkpoint and its sidecar their names again, or others where those were taken; return its path.

    Args:
        aside: the checkpoint; what was not taken, or has been removed, is passed over.
        is_same: whether it is the one that was meant. If not, the one that was meant was written over, and its sidecar
            goes too where another has its place.

    Raises:
        OSError: it cannot be renamed; it keeps its private name.
    """
    back_as = aside.original
    with contextlib.suppress(FileNotFoundError):
        back_as = _put_under_free_name(aside.private, aside.original)
    sidecar = aside.pop_sidecar()
    if sidecar is not None:
        with contextlib.suppress(FileNotFoundError):
            if not is_same and os.path.lexists(sidecar_of(aside.original)):
                sidecar.unlink()
            else:
                _put_under_free_name(sidecar, sidecar_of(back_as if is_same else aside.original))
    return back_as


def put_back_abandoned(private: Path) -> Path | None:
    """Give a checkpoint its name again that a crash has left under a private one, and its sidecar; return its path.

    None if it is not abandoned, or is no more. A sidecar whose checkpoint had not been taken yet gets its name again
    too, if the trainer has not written another since.

    Raises:
        OSError: it cannot be renamed; it keeps its private name.
    """
    original = original_of(private)
    if original is None:
        return None
    token = token_of(private)
    if original.name.endswith(SIDECAR_ENDING):
        checkpoint = _private(original.with_name(original.name.removesuffix(SIDECAR_ENDING)), token, private.parent)
        if os.path.lexists(checkpoint):
            return put_back_abandoned(checkpoint)
    sidecar = _private(sidecar_of(original), token, private.parent)
    aside = Aside(original, private, token, sidecar if os.path.lexists(sidecar) else None)
    try:
        if not aside.lock():
            return None
        if original.name.endswith(SIDECAR_ENDING) and os.path.lexists(original):
            private.unlink()
            return original
        return put_back(aside) if os.path.lexists(private) else None
    except FileNotFoundError:
        return None
    finally:
        aside.let_go()


def original_of(private: Path) -> Path | None:
    """Return the path that a file had before it was taken aside; None if it was not."""
    if found := _NAME.fullmatch(private.name):
        return private.with_name(found["name"])
    if is_aside_folder(private.parent.name):
        return private.parent.with_name(private.name)
    return None


def token_of(private: Path) -> str:
    """Return the token in a private path."""
    name = private.name if private.name.endswith(ASIDE_ENDING) else private.parent.name
    return name.removesuffix(ASIDE_ENDING).rpartition(".")[2]


def is_aside_folder(name: str) -> bool:
    """Tell whether a name is that of a folder which a long name needs while it is aside."""
    return _FOLDER.fullmatch(name) is not None


def _put_under_free_name(private: Path, place: Path) -> Path:
    for target in free_names(place):
        try:
            rename_new(private, target)
        except FileExistsError:
            if not is_same_file(private, target):
                continue
            private.unlink()  # a crash between linking and unlinking
        return target
    raise FileExistsError(errno.EEXIST, "every name for it is taken", str(place))


def is_same_file(left: Path, right: Path) -> bool:
    """Tell whether two paths are names of one file, links not followed."""
    one, other = _lstat(left), _lstat(right)
    return one is not None and other is not None and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def free_names(place: Path) -> Iterator[Path]:
    """Yield paths to try for a file, without an end: its own, then numbered ones; also those that are there already."""
    yield place
    ending = "".join(place.suffixes[-3:]) if place.name.endswith(SIDECAR_ENDING) else place.suffix
    stem = os.fsencode(place.name.removesuffix(ending))
    for number in count(1):
        tail = os.fsencode(f"_{number}{ending}")
        room = _LONGEST_NAME - len(tail) - len(SIDECAR_ENDING)
        yield place.with_name(os.fsdecode((stem if len(stem) <= room else stem[:room]) + tail))


def _opened(path: Path) -> int | None:
    """Open a file that is aside, to lock it; None for what cannot be locked.

    Raises:
        OSError: it is no more, or cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO):
            return None  # a link, or a file that may not be read
        raise


def _lock(descriptor: int) -> bool:
    """Lock a file until its descriptor is closed; False if someone else has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # no locks on this file system
    return True
