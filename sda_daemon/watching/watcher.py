"""Watches folders with watchdog and turns its events into hints for the daemon's loop.

Callbacks only enqueue. One observer per root, so that a broken one can be replaced without the others
noticing. A root is known by device and inode: one that was renamed and made anew is another folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify_c import InotifyConstants, InotifyFD, inotify_add_watch, inotify_init
from watchdog.observers.polling import PollingObserver

from sda_daemon.watching.hints import FileSeen, FolderSeen, Hint, LibraryTouched, RescanNeeded
from sda_daemon.watching.reach import folder_identity

_WANTED: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileClosedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "glusterfs", "lustre", "sshfs", "vboxsf")
Enqueue = Callable[[Hint], None]


def translate(root: str, event: FileSystemEvent) -> list[Hint]:
    """Return what an event of watchdog hints at."""
    source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
    if isinstance(event, FileMovedEvent):
        hints: list[Hint] = [FileSeen(root, source, False)]
        if _is_below(target, root):
            hints.append(FileSeen(root, target, True))
        return hints
    if isinstance(event, FileClosedEvent):
        return [FileSeen(root, source, True)]
    if isinstance(event, DirMovedEvent):
        return [FolderSeen(root, target)] if _is_below(target, root) else []
    if isinstance(event, DirCreatedEvent):
        return [FolderSeen(root, source)]
    if isinstance(event, DirDeletedEvent):
        return [RescanNeeded(root, "the folder was removed")] if source == root else []
    return [FileSeen(root, source, False)]


def _is_below(path: str, root: str) -> bool:
    return bool(path) and (path == root or path.startswith(root + "/"))


class _Handler(FileSystemEventHandler):
    def __init__(self, root: str, enqueue: Enqueue) -> None:
        self._root = root
        self._enqueue = enqueue

    def dispatch(self, event: FileSystemEvent) -> None:
        try:
            for hint in translate(self._root, event):
                self._enqueue(hint)
        except Exception as error:  # noqa: BLE001 - an error here would end watchdog's dispatcher for good
            self._enqueue(RescanNeeded(self._root, f"an event could not be read: {error}"))


class _LibraryHandler(FileSystemEventHandler):
    def __init__(self, enqueue: Enqueue) -> None:
        self._enqueue = enqueue

    def dispatch(self, event: FileSystemEvent) -> None:
        names = (Path(os.fsdecode(path)).name for path in (event.src_path, event.dest_path) if path)
        if any(name and not name.startswith(".") for name in names):
            self._enqueue(LibraryTouched())


@dataclass(frozen=True, slots=True)
class WatchState:
    """How a root is being watched now.

    `observer` is "native", "polling" or "" for not at all; `problem` says why it is not native, if it should be,
    and `can_recover` whether that may pass.
    """

    observer: str
    problem: str = ""
    can_recover: bool = False


class RootWatch:
    """Watches one folder and everything below it, again and again.

    Args:
        root: absolute path.
        observer: "auto", "native" or "polling".
        poll_interval_s: pause between looks when polling.
        enqueue: takes the hints; called from other threads.
        is_library: watch for changes of the models folder itself, not below it.
    """

    def __init__(
        self, root: str, observer: str, poll_interval_s: float, enqueue: Enqueue, *, is_library: bool = False
    ) -> None:
        self.root = root
        self.state = WatchState("")
        self._wanted = observer
        self._poll_interval_s = poll_interval_s
        self._enqueue = enqueue
        self._is_library = is_library
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None

    def start(self) -> bool:
        """Begin to watch; False if the folder is not there. `state` tells how it is watched."""
        identity = folder_identity(self.root)
        if identity is None:
            self.state = WatchState("")
            return False
        network = self._wanted == "auto" and file_system_type(self.root).startswith(_NETWORK_FILE_SYSTEMS)
        self._identity = identity
        if self._wanted != "polling" and not network:
            problem = self._begin_native()
            if not problem:
                return True
        else:
            problem = "network file system" if network else ""
        self._begin(PollingObserver(timeout=self._poll_interval_s))
        self.state = WatchState("polling", problem, can_recover=bool(problem) and not network)
        return True

    def _begin_native(self) -> str:
        """Watch natively; return why not, or nothing."""
        try:
            self._begin(Observer())
        except OSError as error:
            return error.args[1] if len(error.args) > 1 else str(error)
        self.state = WatchState("native")
        return ""

    def recover(self) -> bool:
        """Try to watch natively again where only polling was possible; tell whether it works now."""
        polling = self._observer
        if not self.state.can_recover or self._begin_native():
            return False
        if polling is not None:
            _end(polling)
        return True

    def _begin(self, observer: BaseObserver) -> None:
        # It warns of a harmless race when folders are made quickly, once for each, on stderr.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
        handler = _LibraryHandler(self._enqueue) if self._is_library else _Handler(self.root, self._enqueue)
        try:
            observer.schedule(handler, self.root, recursive=not self._is_library, event_filter=_WANTED)
            observer.start()
        except BaseException:
            _end(observer)
            raise
        self._observer = observer

    def why_lost(self) -> str:
        """Return why the watch no longer tells what happens in the folder; empty if it does."""
        if self._observer is None:
            return "not started"
        now = folder_identity(self.root)
        if now is None:
            return "the folder is gone"
        if now != self._identity:
            return "the folder was replaced by another"
        if not self._observer.is_alive():
            return "its dispatcher died"
        if not self._observer.emitters or not all(emitter.is_alive() for emitter in self._observer.emitters):
            return "its watcher thread died"
        if not _reader_is_alive(self._observer):
            return "the inotify reader died"
        return ""

    def watched_folders(self) -> int:
        """Return how many folders are watched natively, as the kernel counts them (proc(5), fdinfo)."""
        reader = getattr(self._observer, "_inotify_fd", None)
        if not isinstance(reader, InotifyFD):
            return 0
        try:
            return Path(f"/proc/self/fdinfo/{reader._inotify_fd}").read_bytes().count(b"inotify wd:")
        except OSError:
            return 0

    def stop(self) -> None:
        """Stop watching."""
        observer, self._observer = self._observer, None
        if observer is not None:
            _end(observer)
        self.state = WatchState("")


def _reader_is_alive(observer: BaseObserver) -> bool:
    """Tell whether the thread that reads the kernel's events for a native observer is still reading.

    watchdog says nothing of it: emitters and dispatcher live on without it, and wait for ever.
    """
    reader = getattr(observer, "_inotify_fd", None)
    if not isinstance(reader, InotifyFD):
        return True  # not inotify
    try:
        os.fstat(reader._inotify_fd)
    except OSError:
        return False
    return reader.is_alive()


def _end(observer: BaseObserver) -> None:
    with contextlib.suppress(Exception):
        observer.unschedule_all()
    with contextlib.suppress(Exception):
        observer.stop()
        if observer.is_alive():
            observer.join(timeout=2.0)


def refuses_watches(folder: str) -> bool:
    """Tell whether the kernel refuses one more watch at this moment, because the user's limit is reached.

    That is tried with an inotify instance that is closed again at once. If there is no instance to be had, nothing
    is known of watches, and those that there are go on.
    """
    descriptor = inotify_init()
    if descriptor == -1:
        return False
    try:
        refused = inotify_add_watch(descriptor, os.fsencode(folder), InotifyConstants.IN_DELETE_SELF) == -1
        return refused and ctypes.get_errno() == errno.ENOSPC
    finally:
        os.close(descriptor)


def file_system_type(path: str) -> str:
    """Return the type of the file system that a path is on, such as `ext4` or `nfs4`; empty if unknown."""
    best, kind = "", ""
    real = os.path.realpath(path)
    try:
        lines = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split(" ")
        mount = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if (real == mount or real.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


class OverflowListener(logging.Handler):
    """Turns watchdog's log warning about a full event queue into a hint: it is the only sign it gives."""

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_overflow = on_overflow
        self._logger = logging.getLogger("watchdog")

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on an overflow."""
        if "overflow" in record.getMessage().lower():
            self._on_overflow()

    def install(self) -> None:
        """Begin to listen."""
        self._logger.addHandler(self)
        self._let_others_hear(is_wanted=False)

    def uninstall(self) -> None:
        """Stop listening."""
        self._logger.removeHandler(self)
        self._let_others_hear(is_wanted=True)

    def _let_others_hear(self, *, is_wanted: bool) -> None:
        """Let what watchdog logs go on to the handlers of the loggers above, or not."""
        from logging.config import dictConfig  # loaded where a watch lives: it takes milliseconds

        loggers = {self._logger.name: {"propagate": is_wanted}}
        dictConfig({"version": 1, "incremental": True, "loggers": loggers})
