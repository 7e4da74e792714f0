"""Ctrl-C while workers are at work: heard at once, and never in the middle of what it would break."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

T = TypeVar("T")
_PAUSE_S = 0.2
"""How long Ctrl-C may go unheard."""


def wait_for_first(futures: Collection[Future[T]]) -> set[Future[T]]:
    """Wait until one of these is done, or several, and return those.

    The main thread must not sleep for good: Python raises KeyboardInterrupt there, but does not wake it up where the
    signal came just before it fell asleep, or was handed to another thread by the kernel.
    """
    while True:
        done, _ = wait(futures, timeout=_PAUSE_S, return_when=FIRST_COMPLETED)
        if done:
            return done


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C back for a moment.

    For handing work to a pool: a KeyboardInterrupt within its queues would leave their locks so that it never ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
