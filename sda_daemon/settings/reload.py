"""Notices that the config file has changed, in whatever way editors and deployments change files.

Its folder is watched, and those of all symbolic links on the way to it; and its content is looked at every few
seconds, for the changes that no event tells of. What counts is the content, once it has stopped changing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from sda_daemon import events
from sda_daemon.errors import ConfigError, Problem, SdaError
from sda_daemon.settings.loading import MAX_CONFIG_BYTES, LoadedConfig, digest_of, parse_config
from sda_daemon.small_files import read_small_file
from sda_daemon.wording import listed

QUIET_S = 0.2
"""The content must stay the same for this long: an editor may truncate first and write then."""
GONE_S = 1.5
"""A file that is not there, or empty, is believed to be so only after this long."""
_MAX_LINKS = 40
_EMPTY = digest_of(b"")
_GONE = "gone"


@dataclass(frozen=True, slots=True)
class ConfigTouched:
    """Something happened to the config file, or on the way to it."""


@dataclass(frozen=True, slots=True)
class ConfigState:
    """What `status` shows of the config.

    Attributes:
        path: the file.
        read_at: when the config in force was read, ISO 8601 in UTC.
        digest: of the content in force.
        error: why a newer version was refused; empty if the newest one is in force.
    """

    path: str
    read_at: str
    digest: str
    error: str = ""


class Steadiness:
    """Tells when a content has stopped changing. Pure: time is an argument, in monotonic seconds."""

    def __init__(self) -> None:
        self._digest = ""
        self._since = 0.0

    def observe(self, digest: str, now: float) -> bool:
        """Take note of what the content is now; tell whether it has been that for long enough."""
        if digest != self._digest:
            self._digest, self._since = digest, now
        return now - self._since >= (GONE_S if digest in (_GONE, _EMPTY) else QUIET_S)


class ConfigFile:
    """The config file of a running daemon.

    Args:
        config: the config in force.
        environment: variables for overrides and paths; by default this process's.

    Attributes:
        state: for `status`.
        is_asked: whether someone waits for the file to be read again.
    """

    def __init__(
        self,
        config: LoadedConfig,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.path = config.path.absolute()
        self.state = ConfigState(str(self.path), _utc_now(), config.digest)
        self._environment = environment
        self._considered = config.digest
        self._steadiness = Steadiness()
        self._look_at = float("inf")
        self.is_asked = False
        self._watch: _FolderWatch | None = None

    def start(self, enqueue: Callable[[ConfigTouched], None]) -> None:
        """Begin to watch.

        Args:
            enqueue: takes messages for the loop; called from other threads.
        """
        self._watch = _FolderWatch(lambda: enqueue(ConfigTouched()))
        self._watch.follow(self.path)

    def stop(self) -> None:
        """Stop watching."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def touched(self, now: float) -> None:
        """Take note that something may have changed."""
        self._look_at = min(self._look_at, now)

    def ask(self, now: float) -> None:
        """Read the file again, whether it has changed or not."""
        self.is_asked = True
        self.touched(now)

    def supervise(self, now: float) -> None:
        """Look at the content even without any sign of a change, and at the way to the file."""
        self.touched(now)
        if self._watch is not None:
            self._watch.follow(self.path)

    def next_moment(self) -> float:
        """Return when `poll` has something to do, in monotonic seconds."""
        return self._look_at

    def poll(self, now: float) -> LoadedConfig | None:
        """Return a new config if there is one that is valid; say what is wrong with one that is not."""
        if now < self._look_at:
            return None
        self._look_at = float("inf")
        content, digest, problem = self._read()
        if digest == self._considered and not self.is_asked:
            return None
        if not self._steadiness.observe(digest, now):
            self._look_at = now + QUIET_S / 2
            return None
        self._considered, self.is_asked = digest, False
        try:
            if content is None:
                raise ConfigError(problem, "The config that was read before stays in force")
            return parse_config(content, self.path, self._environment)
        except ConfigError as error:
            self.refuse(error)
            return None

    def refuse(self, error: Exception) -> None:
        """Say that a new version is not used, and why."""
        found = error.problems if isinstance(error, ConfigError) else ()
        what = error.what if isinstance(error, SdaError) else str(error)
        first = found[0] if found else Problem(str(self.path), 0, 0, "", what)
        line = first.line or None
        events.CONFIG_REJECTED(
            path=str(self.path), line=line, key=first.key, reason=first.message, problems=max(1, len(found))
        )
        self.state = replace(self.state, error="\n".join(listed(what.split("\n"), "sda-daemon config check")))

    def accept(self, config: LoadedConfig) -> None:
        """Take note that a config is in force now."""
        self.state = ConfigState(str(self.path), _utc_now(), config.digest)

    def _read(self) -> tuple[bytes | None, str, str]:
        """Return content and digest; without content, what is the matter."""
        try:
            content = read_small_file(self.path, MAX_CONFIG_BYTES)
        except FileNotFoundError:
            return None, _GONE, f"{self.path} is gone"
        except OSError as error:
            problem = f"{self.path} cannot be read: {error.strerror or error}"
            return None, problem, problem
        return content, digest_of(content), ""


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- watching -------------------------------------------------------------------------------------


def way_to(path: Path) -> dict[str, set[str]]:
    """Return the folders in which a change may change what a path leads to, with the names that matter there.

    That is the folder of the file, and of every symbolic link on the way, such as `..data` of a mounted config map.
    """
    folders: dict[str, set[str]] = {}
    waiting = list(reversed(Path(os.path.abspath(path)).parts[1:]))  # noqa: PTH100 - links must stay
    here = Path("/")
    links = 0
    while waiting:
        name = waiting.pop()
        if name == "..":
            here = here.parent
            continue
        target = here / name
        if target.is_symlink() and links < _MAX_LINKS:
            links += 1
            folders.setdefault(str(here), set()).add(name)
            goal = target.readlink()
            waiting += reversed(goal.parts[1:] if goal.is_absolute() else goal.parts)
            here = Path("/") if goal.is_absolute() else here
        elif not waiting:
            folders.setdefault(str(here), set()).add(name)
        else:
            here = target
    return folders


class _Handler(FileSystemEventHandler):
    def __init__(self, names: set[str], on_change: Callable[[], None]) -> None:
        self._names = names
        self._on_change = on_change

    def dispatch(self, event: FileSystemEvent) -> None:
        paths = (os.fsdecode(path) for path in (event.src_path, event.dest_path) if path)
        if event.event_type not in ("opened", "closed_no_write") and any(Path(p).name in self._names for p in paths):
            self._on_change()


class _FolderWatch:
    """Watches the way to a file, without what lies below its folders; changed when the way changes."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._way: dict[tuple[str, int], set[str]] = {}
        self._observer: BaseObserver | None = None

    def follow(self, path: Path) -> None:
        """Watch the way to a file as it is now. Where that is not possible, its content is still looked at."""
        way = {(folder, _inode(folder)): names for folder, names in way_to(path).items()}
        if way == self._way:
            return
        self.stop()
        self._way = way
        with contextlib.suppress(OSError):  # no inotify left, say
            observer = Observer()
            observer.daemon = True
            for (folder, inode), names in way.items():
                if inode:
                    observer.schedule(_Handler(names, self._on_change), folder, recursive=False)
            observer.start()
            self._observer = observer
        self._on_change()

    def stop(self) -> None:
        """Stop watching."""
        observer, self._observer, self._way = self._observer, None, {}
        if observer is not None:
            with contextlib.suppress(Exception):
                observer.unschedule_all()
                observer.stop()
                observer.join(timeout=2.0)


def _inode(folder: str) -> int:
    try:
        return os.stat(folder).st_ino
    except OSError:
        return 0
