"""b40: telling never breaks doing, whatever becomes of stderr."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]
END_S = 30.0
"""Within this a daemon without work must have ended: less than what systemd waits."""
PRELUDE = "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


def begin(daemon: DaemonProcess, stderr: int | BinaryIO | None, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a daemon whose stderr is this; a closed one without it."""
    daemon.write_config()
    command = ["-m", "sda_daemon", "run", "--config", str(daemon.config), *arguments]
    if stderr is None:
        command = ["-c", PRELUDE, *command]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=stderr)
    daemon.process = process
    return process


@contextlib.contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full of empty lines and takes nothing more until somebody reads; reader and writer."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * 512)
    os.set_blocking(writer, True)
    try:
        yield reader, writer
    finally:
        for descriptor in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@contextlib.contextmanager
def stderr_of(kind: str) -> Iterator[int | None]:
    """A stderr that takes nothing, of one kind or another."""
    if kind == "closed":
        yield None
    elif kind == "full disk":
        with open("/dev/full", "wb") as full:
            yield full.fileno()
    elif kind == "nobody reads":
        reader, writer = os.pipe()
        os.close(reader)
        yield writer
        os.close(writer)
    else:
        with full_pipe() as (_, writer):
            yield writer


KINDS = ("closed", "full disk", "nobody reads", "reader hangs")


@pytest.mark.parametrize("kind", KINDS)
def test_b40_work_goes_on_and_a_stop_is_heard(daemon: DaemonProcess, drop: Drop, kind: str) -> None:
    """Checkpoints become models, SIGTERM ends it in time, and the exit code is as always."""
    with stderr_of(kind) as stderr:
        begin(daemon, stderr)
        drop(daemon.drop / "a" / "x.pt", 1)
        daemon.wait_for_models(1)
        drop(daemon.drop / "b" / "x.pt", 2)
        daemon.wait_for_models(2)
        before = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - before < END_S


@pytest.mark.parametrize("kind", KINDS)
def test_b40_a_run_once_ends_with_its_own_exit_code(daemon: DaemonProcess, drop: Drop, kind: str) -> None:
    """1 because of a checkpoint that is none, and the other one is converted."""
    drop(daemon.drop / "a" / "x.pt", 1)
    (daemon.drop / "bad.pt").write_bytes(b"no checkpoint at all")
    with stderr_of(kind) as stderr:
        begin(daemon, stderr, "--once")
        assert daemon.wait() == 1
    assert len(daemon.models()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_b40_a_config_that_is_not_there_has_its_exit_code(tmp_path: Path, kind: str) -> None:
    """78, also where nobody can be told."""
    with stderr_of(kind) as stderr:
        command = ["-m", "sda_daemon", "run", "--config", str(tmp_path / "none.yaml")]
        if stderr is None:
            command = ["-c", PRELUDE, *command]
        done = subprocess.run([sys.executable, *command], stderr=stderr, timeout=60, check=False)
    assert done.returncode == 78


def test_b40_no_file_of_the_daemon_becomes_its_stderr(daemon: DaemonProcess, drop: Drop) -> None:
    """A closed stderr leads nowhere: what libraries print into it must not land in the ledger."""
    process = begin(daemon, None)
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for_models(1)
    assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path(os.devnull)
    assert daemon.stop() == 0


def lines_of(reader: int) -> list[dict[str, Any]]:
    """Read to the end, and return the events among the lines."""
    with os.fdopen(reader, "rb") as stream:
        return [json.loads(line) for line in stream.read().splitlines() if line.startswith(b"{")]


def test_b40_a_reader_that_reads_again_gets_every_line(daemon: DaemonProcess, drop: Drop) -> None:
    """What waited comes in its order, each line with the time of its event."""
    with full_pipe() as (reader, writer):
        begin(daemon, writer)
        drop(daemon.drop / "a" / "x.pt", 1)
        daemon.wait_for_models(1)
        os.close(writer)
        daemon.send(signal.SIGTERM)
        events = lines_of(os.dup(reader))
    assert daemon.wait() == 0
    names = [event["event"] for event in events]
    assert names[0] == "daemon.started"
    assert names[-1] == "daemon.stopped"
    assert "conversion.succeeded" in names
    assert "log.lines_lost" not in names
    assert [event["timestamp"] for event in events] == sorted(event["timestamp"] for event in events)


def test_b40_lost_lines_are_counted_and_told(daemon: DaemonProcess, drop: Drop) -> None:
    """A new reader hears, first of all and without another event, how many lines nobody read."""
    fifo = daemon.base / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with fifo.open("wb", buffering=0) as writer:
        begin(daemon, writer)
    daemon_started = eventually(lambda: read_some(reader), "the daemon says something")
    assert b"daemon.started" in daemon_started
    os.close(reader)
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for_models(1)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    lines = eventually(lambda: read_some(reader), "lost lines are told").splitlines()
    first = json.loads(lines[0])
    assert (first["event"], first["level"]) == ("log.lines_lost", "warning")
    assert first["count"] >= 3  # seen, settled, started, succeeded … as far as the first reader did not get them
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert b"daemon.stopped" in eventually(lambda: read_some(reader), "the end is told")
    os.close(reader)


def read_some(reader: int) -> bytes:
    """Return what is there to be read, nothing while there is nothing."""
    with contextlib.suppress(BlockingIOError):
        return os.read(reader, 1 << 20)
    return b""


def test_b40_a_crash_is_told_after_what_came_before(daemon: DaemonProcess) -> None:
    """A traceback is still there, behind the events."""
    program = """
import sys
import sda_daemon.daemon.session as session
def turn(*_arguments): raise ZeroDivisionError("no way")
session.Session.turn = turn
from sda_daemon.cli.app import run_app
run_app(sys.argv[1:])
"""
    daemon.write_config()
    command = [sys.executable, "-c", program, "run", "--config", str(daemon.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    traceback = lines.index("Traceback (most recent call last):")
    assert [json.loads(line)["event"] for line in lines[:traceback]][-1] in ("daemon.crashed", "library.swept")
    assert lines[-1] == "ZeroDivisionError: no way"


def test_b40_pipes_stay_as_others_have_them(daemon: DaemonProcess) -> None:
    """The daemon does not make a stderr that it shares with others one that does not wait."""
    reader, writer = os.pipe()
    begin(daemon, writer)
    eventually(lambda: fcntl.fcntl(reader, fcntl.F_GETFL) is not None and os.read(reader, 1), "it says something")
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(reader)
    assert daemon.stop() == 0
    os.close(writer)
