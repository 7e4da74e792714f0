"""What the service manager is told, and when. Time is an argument."""

from __future__ import annotations

from sda_daemon.daemon.heartbeat import EXTEND_EVERY_S, EXTEND_S, Heartbeat
from sda_daemon.service.notify import Notifier
from sda_daemon.service.status import Progress


class Ear(Notifier):
    """A service manager that keeps what it hears."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        super().__init__("/there/is/none", watchdog_s)
        self.heard: list[str] = []

    def _send(self, message: str) -> None:
        self.heard.append(message.split("\n", maxsplit=1)[0])


def test_ready_comes_after_the_first_status() -> None:
    """Whoever waits for it sees at once what the daemon is doing."""
    ear = Ear(watchdog_s=20.0)
    Heartbeat(ear).ready(Progress(watching=2), 5.0)
    assert ear.heard == ["WATCHDOG=1", "STATUS=watching 2 folders; nothing to do", "READY=1"]


def test_the_watchdog_is_fed_by_turns() -> None:
    """Every half of its interval, and not more often."""
    ear = Ear(watchdog_s=20.0)
    heartbeat = Heartbeat(ear)
    for now in (0.0, 3.0, 9.0, 10.0, 12.0, 25.0):
        heartbeat.poll(Progress(), now)
    assert ear.heard.count("WATCHDOG=1") == 3
    assert heartbeat.next_moment() == 35.0


def test_a_reload_that_nobody_asked_for_needs_no_answer() -> None:
    """One that was asked for is over once, whatever has come of it."""
    ear = Ear()
    heartbeat = Heartbeat(ear)
    heartbeat.reloaded(Progress(), 1.0)
    assert "READY=1" not in ear.heard
    heartbeat.reloading()
    heartbeat.reloaded(Progress(), 2.0)
    heartbeat.reloaded(Progress(), 3.0)
    assert [text for text in ear.heard if "STATUS" not in text] == ["RELOADING=1", "READY=1"]


def test_the_end_is_asked_time_for() -> None:
    """Again and again, as long as conversions run."""
    ear = Ear()
    heartbeat = Heartbeat(ear)
    heartbeat.stopping()
    for now in (100.0, 101.0, 100.0 + EXTEND_EVERY_S, 111.0):
        heartbeat.drain(3, now, 130.0)
    extend = f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1e6:.0f}"
    assert [text for text in ear.heard if "STATUS" not in text] == ["STOPPING=1", extend, extend, extend]
    assert ear.heard[-1] == "STATUS=ending; 3 converting, cut off in 19 s"
