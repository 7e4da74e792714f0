"""sd_notify against real datagram sockets, and by a real daemon."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sda_daemon.service.notify import Notifier
from tests.daemon_process import DaemonProcess, eventually


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Return all messages so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self.socket.recv(65_536).decode())
        return self.heard

    def wait_for(self, text: str, after: int = 0) -> int:
        """Wait for a message with this text and return the position behind it."""

        def found() -> int:
            return next((i + 1 for i, message in enumerate(self.listen()) if i >= after and text in message), 0)

        try:
            position: int = eventually(found, text)
        except AssertionError as error:
            raise AssertionError(f"{error}; heard: {self.heard}") from None
        return position


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A listening manager, at a path and at an abstract address."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@sda-daemon-test-{os.getpid()}-{id(tmp_path)}"
    manager = Manager(address)
    yield manager
    manager.socket.close()


def test_every_message(manager: Manager) -> None:
    """Each call is one datagram in the protocol's words; reloading carries the clock of this machine."""
    notifier = Notifier(manager.address, watchdog_s=10.0)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    notifier.ready()
    notifier.status("watching 3 folders;\nlast: é", 0.0)
    notifier.alive(0.0)
    notifier.extending(1.5)
    notifier.stopping()
    reloading, *others = manager.listen()
    first, _, moment = reloading.partition("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert before <= int(moment) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    expected = ["READY=1", "STATUS=watching 3 folders; last: é", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=1500000"]
    assert others == [*expected, "STOPPING=1"]


def test_the_status_is_sent_when_it_has_changed_and_not_too_often(manager: Manager) -> None:
    """The same text is not sent twice; one that comes too soon is sent when its time has come."""
    notifier = Notifier(manager.address)
    for now, text in [(0.0, "a"), (5.0, "a"), (5.1, "b"), (5.2, "c"), (6.2, "c")]:
        notifier.status(text, now)
    assert manager.listen() == ["STATUS=a", "STATUS=b", "STATUS=c"]


def test_the_watchdog_is_fed_at_half_its_interval(manager: Manager) -> None:
    """At once, then not before half of the interval, and `next_moment` says when."""
    notifier = Notifier(manager.address, watchdog_s=10.0)
    for now in (100.0, 101.0, 104.9):
        notifier.alive(now)
    assert len(manager.listen()) == 1
    assert notifier.next_moment() == 105.0
    notifier.alive(105.0)
    assert len(manager.listen()) == 2


def test_the_variables_are_taken_out_of_the_environment(manager: Manager) -> None:
    """No process that is started later sees them."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    notifier = Notifier.from_environment(environ)
    assert environ == {"A": "b"}
    notifier.alive(7.0)
    assert notifier.next_moment() == 9.0
    assert manager.listen() == ["WATCHDOG=1"]


@pytest.mark.parametrize(("usec", "pid"), [("", ""), ("0", ""), ("soon", ""), ("4000000", "1"), ("-1", ""), ("²", "")])
def test_a_watchdog_that_is_none_of_ours(usec: str, pid: str, manager: Manager) -> None:
    """No interval, no number, or another process's: nothing is fed and no moment is waited for."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    notifier = Notifier.from_environment(environ)
    notifier.alive(1.0)
    assert notifier.next_moment() == float("inf")
    assert manager.listen() == []


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "/nowhere/at/all", "@nobody-listens-here"])
def test_without_a_manager_nothing_happens(address: str) -> None:
    """No variable, another kind of socket, or nobody there: no error, whatever is called."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("x", 0.0)
    notifier.alive(0.0)
    assert notifier.is_listening == (address[:1] in ("/", "@") and bool(address))


def test_a_manager_that_does_not_read_harms_nothing(tmp_path: Path) -> None:
    """With the queue full a message is dropped after a while, without an error."""
    manager = Manager(str(tmp_path / "notify"))
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.sendto(b"x", manager.address)
    Notifier(manager.address).ready()
    assert "READY=1" not in manager.listen()
    Notifier(manager.address).ready()
    assert manager.listen()[-1] == "READY=1"


# --- a real daemon --------------------------------------------------------------------------------


@pytest.fixture
def supervised(daemon: DaemonProcess, tmp_path: Path) -> Iterator[tuple[DaemonProcess, Manager]]:
    """A daemon that a manager listens to, with a watchdog of one second."""
    manager = Manager(str(tmp_path / "notify"))
    daemon.write_config()
    daemon.start(wait=False, env={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"})
    yield daemon, manager
    daemon.kill()
    manager.socket.close()


def test_a_daemon_tells_of_its_life(
    supervised: tuple[DaemonProcess, Manager], small_checkpoints: Callable[..., Path]
) -> None:
    """Ready once it watches, a status in words, reloading and ready, pings, stopping."""
    daemon, manager = supervised
    ready = manager.wait_for("READY=1")
    assert "STATUS=watching 1 folder; nothing to do" in manager.heard[:ready]
    assert daemon.events("watch.started")
    (daemon.drop / "rain").mkdir()
    shutil.copyfile(small_checkpoints(1), daemon.drop / "rain" / "x.pt")
    manager.wait_for("STATUS=watching 1 folder; nothing to do; last: rain epoch 7, ")
    position = len(manager.heard)
    daemon.send(signal.SIGHUP)
    position = manager.wait_for("RELOADING=1\nMONOTONIC_USEC=", after=position)
    manager.wait_for("READY=1", after=position)
    for _ in range(3):
        position = manager.wait_for("WATCHDOG=1", after=position)
    assert daemon.stop() == 0
    manager.wait_for("STOPPING=1", after=position)


def test_draining_asks_for_time(
    supervised: tuple[DaemonProcess, Manager], small_checkpoints: Callable[..., Path]
) -> None:
    """While running conversions are waited for, the manager is asked for more time and still hears the loop."""
    daemon, manager = supervised
    for seed in range(4):
        (daemon.drop / f"run{seed}").mkdir()
    shutil.copyfile(small_checkpoints(0), daemon.drop / "run0" / "x.pt")
    daemon.wait_for("conversion.succeeded")
    workers = [child for child in psutil.Process(daemon.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    for worker in workers:
        worker.suspend()
    for seed in range(1, 4):
        shutil.copyfile(small_checkpoints(seed), daemon.drop / f"run{seed}" / "x.pt")
    daemon.wait_for("conversion.started", count=2)
    daemon.send(signal.SIGTERM)
    position = manager.wait_for("STOPPING=1")
    manager.wait_for("EXTEND_TIMEOUT_USEC=30000000", after=position)
    manager.wait_for("STATUS=ending; ", after=position)
    manager.wait_for("WATCHDOG=1", after=position)
    for worker in workers:
        worker.resume()
    assert daemon.wait() == 0
    assert len(daemon.events("conversion.succeeded")) == len(daemon.events("conversion.started")) == 2


def test_a_loop_that_hangs_is_silent(
    supervised: tuple[DaemonProcess, Manager], small_checkpoints: Callable[..., Path]
) -> None:
    """While the loop waits for a locked ledger no ping is sent, though its threads live; afterwards there are again."""
    daemon, manager = supervised
    manager.wait_for("READY=1")
    holder = sqlite3.connect(daemon.state_dir / "ledger.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    shutil.copyfile(small_checkpoints(1), daemon.drop / "x.pt")

    def pings_in(duration_s: float) -> int:
        manager.listen()
        before = manager.heard.count("WATCHDOG=1")
        time.sleep(duration_s)
        return manager.listen().count("WATCHDOG=1") - before

    # A turning loop is heard twice a second.
    eventually(lambda: pings_in(1.5) == 0, "silence")
    holder.execute("ROLLBACK")
    holder.close()
    position = len(manager.heard)
    manager.wait_for("WATCHDOG=1", after=position)
    assert daemon.stop() == 0
