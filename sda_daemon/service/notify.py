"""Tells the service manager how the daemon is doing: the sd_notify(3) protocol.

One datagram of `KEY=value` lines to the socket that `NOTIFY_SOCKET` names. The loop that does the work calls
it, never a thread of its own: a watchdog that is fed by a bystander proves nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLES = ("WATCHDOG_USEC", "WATCHDOG_PID")
STATUS_PAUSE_S = 1.0
"""The status line is sent at most this often, in seconds."""
SEND_TIMEOUT_S = 2.0
"""A message that the manager does not take in this time is dropped."""


class Notifier:
    """The service manager's ear; deaf where there is none.

    Nothing here raises, or waits for long: a manager that does not listen must not harm the daemon.

    Args:
        address: path of a datagram socket, an abstract one beginning with `@`; empty for none.
        watchdog_s: the manager acts if it has not heard of the daemon for so long, in seconds; None for never.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = os.fsencode(address)
        if self._address.startswith(b"@"):
            self._address = b"\0" + self._address[1:]
        self._ping_every_s = watchdog_s / 2 if address and watchdog_s else math.inf
        self._pinged_at = -math.inf
        self._status = ""
        self._status_at = -math.inf

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Self:
        """Read the manager's variables and take them out of `environ`: they are for this process alone."""
        address = environ.pop(SOCKET_VARIABLE, "")
        usec, pid = (environ.pop(name, "") for name in WATCHDOG_VARIABLES)
        is_ours = pid in ("", str(os.getpid()))
        interval_s = int(usec) / 1e6 if is_ours and usec.isascii() and usec.isdigit() and int(usec) > 0 else None
        # Other kinds of address (vsock, for virtual machines) are not for a daemon on this machine.
        return cls(address if address.startswith(("/", "@")) else "", interval_s)

    @property
    def is_listening(self) -> bool:
        """Whether there is a service manager."""
        return bool(self._address)

    def ready(self) -> None:
        """Say that the daemon is up, or that a reload is over."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the config is being read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the daemon is on its way out."""
        self._send("STOPPING=1")

    def extending(self, duration_s: float) -> None:
        """Ask for so much more time to start, stop or reload, in seconds from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={max(0, round(duration_s * 1e6))}")

    def status(self, text: str, now: float) -> None:
        """Show a line of plain words; sent when it has changed, and not all the time.

        Args:
            text: the line.
            now: monotonic seconds.
        """
        if text != self._status and now >= self._status_at + STATUS_PAUSE_S:
            self._status, self._status_at = text, now
            self._send("STATUS=" + " ".join(text.split()))

    def alive(self, now: float) -> None:
        """Say that the loop turns; sent when half of the watchdog's interval is over.

        Args:
            now: monotonic seconds.
        """
        if now >= self.next_moment():
            self._pinged_at = now
            self._send("WATCHDOG=1")

    def next_moment(self) -> float:
        """Return when `alive` must be called next, in monotonic seconds; infinity without a watchdog."""
        return self._pinged_at + self._ping_every_s if math.isfinite(self._ping_every_s) else math.inf

    def _send(self, message: str) -> None:
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        # A manager that is not there, or that does not read for so long, is told the next thing instead.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as channel:
            channel.settimeout(SEND_TIMEOUT_S)
            channel.connect(self._address)
            channel.send(message.encode(errors="replace"))
