"""A thread that tells what happens, so that nothing that is done waits for it or fails because of it.

What is to be told waits in a queue with an end. Where the disk is full, or nobody reads, lines are lost and counted,
and their number is told as soon as telling works again. In a process that was forked off a new thread begins with
nothing: what the parent had to tell is the parent's.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

MOST_WAITING = 10_000
"""Most lines that wait to be told; of more, the newest are lost."""
MOST_BYTES_WAITING = 16 * 2**20
ROOM_S = 0.1
ROOM_PAUSE_S = 1.0
"""How long a full queue holds up who wants to tell something, and for how long not again if that was in vain, in
seconds: a thread that is only slower than a busy loop loses nothing, one that hangs costs next to nothing.
"""
RETRY_S = 1.0
LONGEST_RETRY_S = 10.0
"""How long until it is tried again to tell how much was lost, when there is nothing else to tell, in seconds."""

Tell = Callable[[], None]


class Teller:
    """Calls functions that tell something, one after the other, in a thread of its own. Safe from any thread.

    Args:
        most: how many may wait.
        most_bytes: how large they may be together.
    """

    def __init__(self, most: int = MOST_WAITING, most_bytes: int = MOST_BYTES_WAITING) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._notice: Callable[[int], Tell] | None = None
        self.begin_anew()
        _tellers.add(self)

    def begin_anew(self) -> None:
        """Forget what waits and who tells it: for a process that was forked off."""
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Tell | None, int]] = deque()  # None: so many were lost here
        self._waiting_bytes = 0
        self._dropped = 0
        self._lost = 0
        self._is_idle = True
        self._is_hurried = False
        self._no_room_before = 0.0
        self._is_crowded = False
        self._turns = 0
        self._stuck_at: int | None = None
        self._thread: threading.Thread | None = None

    def configure(self, notice: Callable[[int], Tell]) -> None:
        """Let this tell from now on how many lines were lost."""
        with self._changed:
            self._notice = notice

    @property
    def waiting(self) -> int:
        """How many lines wait to be told."""
        return len(self._waiting)

    def put(self, tell: Tell, size_bytes: int = 0) -> None:
        """Have something told; never fails, and waits for a moment at most.

        Args:
            tell: tells it, or raises an exception if it cannot.
            size_bytes: how much memory it takes until then.
        """
        with self._changed:
            if not self._has_room(size_bytes):
                self._dropped += 1
            else:
                if self._dropped:
                    self._waiting.append((None, self._dropped))
                    self._dropped = 0
                self._waiting.append((tell, size_bytes))
                self._waiting_bytes += size_bytes
            self._wake()

    def miss(self) -> None:
        """Count something that could not even be put into words."""
        with self._changed:
            self._dropped += 1
            self._wake()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that waits is told, but no longer than this; return whether it is.

        What has been waited for once in vain is not waited for again, as long as it does not go on.
        """
        with self._changed:
            if self._thread is None:
                return not self._waiting
            self._is_hurried = True
            self._is_idle = False
            self._changed.notify_all()
            is_stuck = self._stuck_at == self._turns
            is_done = self._changed.wait_for(lambda: self._is_idle, 0.0 if is_stuck else timeout_s)
            self._stuck_at = None if is_done else self._turns
            return is_done

    def _has_room(self, size_bytes: int) -> bool:
        """Tell whether something may wait; a full queue is first given a moment to get half empty."""

        def has_room() -> bool:
            return len(self._waiting) < self._most and self._waiting_bytes + size_bytes <= self._most_bytes

        if not has_room() and self._thread is not None and time.monotonic() >= self._no_room_before:
            self._is_crowded = True
            if not self._changed.wait_for(self._is_half_empty, ROOM_S):
                self._no_room_before = time.monotonic() + ROOM_PAUSE_S
        return has_room()

    def _is_half_empty(self) -> bool:
        return 2 * len(self._waiting) <= self._most and 2 * self._waiting_bytes <= self._most_bytes

    def _wake(self) -> None:
        self._is_idle = False
        if self._thread is None:
            thread = threading.Thread(target=self._run, daemon=True, name="telling")
            try:
                thread.start()
            except RuntimeError:  # no more threads: the next line tries again
                return
            self._thread = thread
        self._changed.notify_all()

    def _run(self) -> None:
        pause_s = RETRY_S
        while True:
            tell = self._next(pause_s)
            had_lost = self._lost
            if self._lost and self._is_told(self._tell_lost):
                self._lost = 0
            if tell is not None and (self._lost or not self._is_told(tell)):
                self._lost += 1
            pause_s = min(2 * pause_s, LONGEST_RETRY_S) if had_lost and self._lost else RETRY_S

    def _next(self, pause_s: float) -> Tell | None:
        """Wait for what is to be told next; None where it is only to be tried to tell what was lost."""
        with self._changed:
            self._turns += 1
            while True:
                if self._is_crowded and self._is_half_empty():
                    self._is_crowded = False
                    self._changed.notify_all()
                if self._waiting:
                    tell, size = self._waiting.popleft()
                    if tell is not None:
                        self._waiting_bytes -= size
                        return tell
                    self._lost += size
                elif self._dropped:
                    self._lost += self._dropped
                    self._dropped = 0
                    return None
                elif self._is_hurried:
                    self._is_hurried = False
                    return None
                else:
                    self._is_idle = True
                    self._changed.notify_all()
                    if not self._changed.wait(pause_s if self._lost else None):
                        return None

    def _tell_lost(self) -> None:
        if self._notice is not None:
            self._notice(self._lost)()

    @staticmethod
    def _is_told(tell: Tell) -> bool:
        try:
            tell()
        except Exception:  # noqa: BLE001 - whatever it is, it is a line that was lost
            return False
        return True


_tellers: weakref.WeakSet[Teller] = weakref.WeakSet()


def _begin_anew() -> None:
    for teller in list(_tellers):
        teller.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


class Stream:
    """Writes lines to a file, a terminal or a pipe, without a buffer that a hanging reader could keep locked.

    Args:
        descriptor: where to.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_cut = False

    def write(self, line: bytes) -> None:
        """Write a line. After half of one the next begins on a line of its own.

        Raises:
            OSError: it cannot be written, or only the beginning of it.
        """
        rest = memoryview(b"\n" + line if self._is_cut else line)
        whole = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                wait_until_writable(self._descriptor)
            except OSError:
                self._is_cut = self._is_cut or len(rest) < whole
                raise
        self._is_cut = False


def wait_until_writable(descriptor: int, timeout_s: float | None = None) -> bool:
    """Wait until something can be written; return False if that takes longer than `timeout_s`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
