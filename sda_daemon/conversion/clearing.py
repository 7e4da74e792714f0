"""Deletes and moves sources beside the loop: a copy to another disk takes as long as it takes.

One thread does one thing after another and tells the loop what became of it. A destination that is full or read-only
is tried again now and then, with one checkpoint, until it takes some again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sda_daemon.conversion.sources import (
    PART_ENDING,
    DestinationError,
    delete_source,
    destination_of,
    move_source,
    sweep_parts,
)
from sda_daemon.intake.aside import ASIDE_ENDING, SourceChangedError, original_of, put_back_abandoned
from sda_daemon.intake.scan import find_asides
from sda_daemon.os_errors import sandbox_hint
from sda_daemon.signature import FileSignature, signature_at

BLOCKED_S = 5.0
"""How long a full or read-only destination is left alone before one more checkpoint is tried, in seconds."""
JOIN_S = 5.0
"""How long the end of what is being done is waited for; a disk that hangs must not keep the daemon."""
KILLED = "the daemon was killed while it was being deleted or moved"
"""Why a file is found under a private name."""


@dataclass(frozen=True, slots=True)
class SourceCleared:
    """A checkpoint that is done with was deleted, or moved to `moved_to`."""

    path: str
    root: str
    signature: FileSignature
    moved_to: str


@dataclass(frozen=True, slots=True)
class SourceStayed:
    """A checkpoint that is done with was not deleted or moved.

    Attributes:
        path, root, signature: the checkpoint.
        reason: why it could not be; empty if there was no more reason to, or another content under its name.
        back_as: where that other content is now; empty if there was none.
        is_waiting: whether it is tried again by itself soon.
    """

    path: str
    root: str
    signature: FileSignature
    reason: str
    back_as: str = ""
    is_waiting: bool = False


@dataclass(frozen=True, slots=True)
class SourcePutBack:
    """A file under a private name was looked at.

    Attributes:
        private: the private path.
        root: the watched folder.
        path: the name that it has again; empty if it was not abandoned, or could not be put back.
        reason: why it could not be.
    """

    private: str
    root: str
    path: str
    reason: str = ""


SourceNews = SourceCleared | SourceStayed | SourcePutBack


@dataclass(frozen=True, slots=True)
class Clearance:
    """A checkpoint that is to be deleted, or moved if there is a place for it.

    Attributes:
        path: the checkpoint.
        root: the watched folder that it lies in.
        signature: of the content that is done with.
        move_to: the folder for what is done, None to delete it.
        is_safe: tells once more, right before it is done, that its model is there.
    """

    path: str
    root: str
    signature: FileSignature
    move_to: Path | None
    is_safe: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Abandoned:
    """A file that a crash has left under its private name, and where it may have been on its way to."""

    private: str
    root: str
    move_to: Path | None


class Clearing:
    """The queue of what is to be deleted or moved, and the thread that does it.

    Args:
        enqueue: takes messages for the loop; called from the thread.
        retries: whether a full destination is waited for; else what is for it stays.
    """

    def __init__(self, enqueue: Callable[[SourceNews], None], *, retries: bool = True) -> None:
        self._enqueue = enqueue
        self._with_retries = retries
        self._wanted: dict[str, FileSignature] = {}  # the loop's: what is queued or being done
        self._back: set[str] = set()  # likewise, of what is to be put back
        self._items: deque[Clearance | _Abandoned] = deque()
        self._blocked: dict[Path, float] = {}
        self._moved_links: dict[FileSignature, list[Path]] = {}  # the thread's: by what they lead to
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    # --- the loop's side --------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or being done."""
        return not self._wanted and not self._back

    def add(self, clearance: Clearance) -> None:
        """Have a checkpoint deleted or moved, unless that is under way."""
        if not self._is_stopping and self._wanted.get(clearance.path) != clearance.signature:
            self._wanted[clearance.path] = clearance.signature
            self._put(clearance)

    def put_back(self, private: str, root: str, move_to: Path | None) -> None:
        """Have a file looked at that has a private name: if a crash left it so, it gets its old one back."""
        if not self._is_stopping and private not in self._back:
            self._back.add(private)
            self._put(_Abandoned(private, root, move_to))

    def done(self, message: SourceNews) -> None:
        """Take note of what the thread has told."""
        if isinstance(message, SourcePutBack):
            self._back.discard(message.private)
        elif self._wanted.get(message.path) == message.signature and not (
            isinstance(message, SourceStayed) and message.is_waiting
        ):
            del self._wanted[message.path]

    def drop(self) -> None:
        """Forget what has not begun: another config may want it otherwise, and a rescan finds it again."""
        with self._changed:
            for item in self._items:
                if isinstance(item, Clearance):
                    self._wanted.pop(item.path, None)
                else:
                    self._back.discard(item.private)
            self._items.clear()
            self._blocked.clear()

    def stop(self) -> None:
        """End the thread: what it is at is finished or undone, the rest is found again at the next start."""
        with self._changed:
            self._is_stopping = True
            self._items.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(JOIN_S)
        self._wanted.clear()
        self._back.clear()

    def _put(self, item: Clearance | _Abandoned) -> None:
        is_link = isinstance(item, Clearance) and os.path.islink(item.path)  # noqa: PTH114 - it is a text
        with self._changed:
            if is_link:  # before what it leads to, which has another signature once it has been copied
                self._items.appendleft(item)
            else:
                self._items.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="clearing", daemon=True)
                self._thread.start()
            self._changed.notify()

    # --- the thread's side ------------------------------------------------------------------------

    def _run(self) -> None:
        while (item := self._next()) is not None:
            if isinstance(item, _Abandoned):
                self._enqueue(_put_back(item))
            else:
                self._enqueue(self._clear(item))

    def _next(self) -> Clearance | _Abandoned | None:
        """Wait for something that can be done now; None to end."""
        with self._changed:
            while not self._is_stopping:
                now = time.monotonic()
                blocked = {folder: at for folder, at in self._blocked.items() if at > now}
                for index, item in enumerate(self._items):
                    if item.move_to not in blocked:
                        del self._items[index]
                        return item
                self._changed.wait(min(blocked.values()) - now if self._items else None)
        return None

    def _clear(self, item: Clearance) -> SourceCleared | SourceStayed:
        path = Path(item.path)
        try:
            if not item.is_safe():
                return SourceStayed(item.path, item.root, item.signature, "")
            if item.move_to is None:
                delete_source(path, item.signature)
                return SourceCleared(item.path, item.root, item.signature, "")
            target = self._move(item, path, item.move_to)
            return SourceCleared(item.path, item.root, item.signature, str(target))
        except SourceChangedError as changed:
            return SourceStayed(item.path, item.root, item.signature, "", back_as=str(changed.back_as))
        except InterruptedError:
            return SourceStayed(item.path, item.root, item.signature, "")
        except OSError as error:
            reason = _reason(error)
            return SourceStayed(item.path, item.root, item.signature, reason, is_waiting=self._waits(item, error))
        except Exception as error:  # noqa: BLE001 - a bug of ours must cost one checkpoint its place, not all of them
            return SourceStayed(item.path, item.root, item.signature, f"{type(error).__name__}: {error}")

    def _move(self, item: Clearance, path: Path, move_to: Path) -> Path:
        links = self._moved_links.get(item.signature, ())
        signature = _led_on(path, move_to, item.signature)
        target = move_source(path, Path(item.root), move_to, signature, lambda: self._is_stopping, links)
        if target.is_symlink():
            self._moved_links.setdefault(item.signature, []).append(target)
        else:
            self._moved_links.pop(item.signature, None)
        return target

    def _waits(self, item: Clearance, error: OSError) -> bool:
        """Leave a destination alone that takes nothing now, and keep what is for it."""
        if item.move_to is None or not isinstance(error, DestinationError) or not self._with_retries:
            return False
        with self._changed:
            self._blocked[item.move_to] = time.monotonic() + BLOCKED_S
            self._items.append(item)  # behind the others: a smaller one may have room
        return True


def _led_on(path: Path, move_to: Path, signature: FileSignature) -> FileSignature:
    """Return the signature that a link has which led to a checkpoint that was copied below `move_to` meanwhile."""
    found = signature_at(str(path)) if path.is_symlink() else None
    if found is None or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(move_to)):
        return signature
    is_copy = (found.size_bytes, found.mtime_ns) == (signature.size_bytes, signature.mtime_ns)
    return found if is_copy else signature


def _put_back(item: _Abandoned) -> SourcePutBack:
    private = Path(item.private)
    original = original_of(private)
    if item.move_to is not None and original is not None:
        sweep_parts(destination_of(original, Path(item.root), item.move_to))
    try:
        path = put_back_abandoned(private)
    except OSError as error:
        return SourcePutBack(item.private, item.root, "", _reason(error))
    except Exception as error:  # noqa: BLE001 - likewise
        return SourcePutBack(item.private, item.root, "", f"{type(error).__name__}: {error}")
    return SourcePutBack(item.private, item.root, "" if path is None else str(path))


def put_back_all(folders: Mapping[str, Path | None]) -> list[SourcePutBack]:
    """Put back at once what crashes have left under private names; for where nothing else is at work yet.

    Args:
        folders: watched folders, with where their checkpoints are moved to.

    Returns:
        What was put back, and what could not be.
    """
    found = [
        _put_back(_Abandoned(private, root, move_to))
        for root, move_to in folders.items()
        for private in find_asides(root)
    ]
    return [message for message in found if message.path or message.reason]


def _reason(error: OSError) -> str:
    """Return what went wrong in words, with the name that it is about: not a private one, if possible."""
    names = [str(name) for name in (error.filename2, error.filename) if name is not None]
    about = next((name for name in names if not name.endswith((ASIDE_ENDING, PART_ENDING))), "")
    text = f"{error.strerror or error}{f': {about}' if about else ''}"
    hint = sandbox_hint(error)
    return f"{text}. {hint}" if hint else text
