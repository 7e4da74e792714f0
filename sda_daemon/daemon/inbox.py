"""Where a session hears of everything: other threads and signal handlers put messages here, its loop takes them."""

from __future__ import annotations

import contextlib
import queue

from sda_daemon.daemon.messages import Message


class Inbox:
    """The messages for one session. Closed, it takes no more: late news of an earlier life goes nowhere."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._is_closed = False

    def put(self, message: Message) -> None:
        """Leave a message; from any thread, and from signal handlers."""
        if not self._is_closed:
            self._messages.put(message)

    def take(self, pause_s: float) -> list[Message]:
        """Wait for a message for so long, in seconds, and return all that are there."""
        messages: list[Message] = []
        with contextlib.suppress(queue.Empty):
            messages.append(self._messages.get(timeout=pause_s) if pause_s > 0 else self._messages.get_nowait())
            while True:
                messages.append(self._messages.get_nowait())
        return messages

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return self._messages.empty()

    def close(self) -> None:
        """Take no more messages."""
        self._is_closed = True
