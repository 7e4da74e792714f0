"""Turning events into hints, and telling network file systems from local ones."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
)

from sda_daemon.watching import watcher
from sda_daemon.watching.hints import FileSeen, FolderSeen, Hint, RescanNeeded

ROOT = "/drop"


@pytest.mark.parametrize(
    ("event", "hints"),
    [
        (FileCreatedEvent("/drop/x.pt"), [FileSeen(ROOT, "/drop/x.pt", False)]),
        (FileClosedEvent("/drop/x.pt"), [FileSeen(ROOT, "/drop/x.pt", True)]),
        (
            FileMovedEvent("/drop/.x.pt.tmp", "/drop/x.pt"),
            [FileSeen(ROOT, "/drop/.x.pt.tmp", False), FileSeen(ROOT, "/drop/x.pt", True)],
        ),
        (FileMovedEvent("/drop/x.pt", "/elsewhere/x.pt"), [FileSeen(ROOT, "/drop/x.pt", False)]),
        (FileMovedEvent("/drop/x.pt", "/dropped/x.pt"), [FileSeen(ROOT, "/drop/x.pt", False)]),
        (DirCreatedEvent("/drop/a"), [FolderSeen(ROOT, "/drop/a")]),
        (DirMovedEvent("", "/drop/a"), [FolderSeen(ROOT, "/drop/a")]),
        (DirMovedEvent("/drop/a", "/b"), []),
        (DirDeletedEvent("/drop/a"), []),
        (DirDeletedEvent("/drop"), [RescanNeeded(ROOT, "the folder was removed")]),
    ],
)
def test_events_become_hints(event: FileSystemEvent, hints: list[Hint]) -> None:
    """A file that was closed or moved in is whole; a folder is to be looked into; what left is looked at."""
    assert watcher.translate(ROOT, event) == hints


def test_b08_network_file_systems_are_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` does not trust inotify where other machines write, and `native` does as it is told."""
    monkeypatch.setattr(watcher, "_NETWORK_FILE_SYSTEMS", (watcher.file_system_type(str(tmp_path)),))
    for wanted, chosen in (("auto", "polling"), ("native", "native")):
        watch = watcher.RootWatch(str(tmp_path), wanted, 1.0, lambda _hint: None)
        assert watch.start()
        assert watch.state.observer == chosen
        assert watch.why_lost() == ""
        watch.stop()
    assert "nfs4".startswith(("nfs", "cifs"))


def test_file_system_of_a_path_is_that_of_its_mount() -> None:
    """The longest mount point above the path counts."""
    assert watcher.file_system_type("/proc/self") == "proc"


def test_asking_for_a_watch_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where there are watches to be had it says so, and neither keeps one nor a descriptor."""
    before = sorted(os.listdir("/proc/self/fd"))
    assert not watcher.refuses_watches(str(tmp_path))
    assert not watcher.refuses_watches(str(tmp_path / "gone"))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_watchdog_logs_is_heard_by_the_listener_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Only an overflow is passed on, and no other handler hears of anything, until it stops listening."""
    overflows: list[int] = []
    listener = watcher.OverflowListener(lambda: overflows.append(1))
    logger = logging.getLogger("watchdog.observers.inotify_c")
    level = logging.getLogger("watchdog").level
    listener.install()
    try:
        logger.warning("inotify Queue Overflow")
        logger.warning("something else")
        assert (len(overflows), caplog.messages) == (1, [])
    finally:
        listener.uninstall()
    logger.warning("inotify Queue Overflow")
    assert (len(overflows), caplog.messages) == (1, ["inotify Queue Overflow"])
    assert logging.getLogger("watchdog").level == level
    assert listener not in logging.getLogger("watchdog").handlers


def test_a_watch_ends_with_the_process(tmp_path: Path) -> None:
    """Its threads keep no process alive, however it watches."""
    for wanted in ("native", "polling"):
        watch = watcher.RootWatch(str(tmp_path), wanted, 1.0, lambda _hint: None)
        assert watch.start()
        assert watch._observer is not None
        assert watch._observer.daemon
        watch.stop()
