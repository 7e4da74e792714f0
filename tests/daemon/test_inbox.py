"""What comes to a session's inbox."""

from __future__ import annotations

import threading

from sda_daemon.daemon.inbox import Inbox
from sda_daemon.daemon.messages import RetryRequested, StopRequested


def test_all_that_is_there_comes_at_once() -> None:
    """In the order in which it was put there; without any, nothing is waited for longer than was said."""
    inbox = Inbox()
    assert inbox.take(0.0) == []
    assert inbox.take(0.001) == []
    inbox.put(RetryRequested())
    inbox.put(StopRequested("SIGTERM"))
    assert not inbox.is_empty
    assert inbox.take(60.0) == [RetryRequested(), StopRequested("SIGTERM")]
    assert inbox.is_empty


def test_a_message_ends_the_waiting() -> None:
    """From whichever thread it comes."""
    inbox = Inbox()
    thread = threading.Thread(target=inbox.put, args=[RetryRequested()])
    thread.start()
    assert inbox.take(60.0) == [RetryRequested()]
    thread.join()


def test_closed_it_takes_no_more() -> None:
    """Late news of an earlier life goes nowhere."""
    inbox = Inbox()
    inbox.put(RetryRequested())
    inbox.close()
    inbox.put(RetryRequested())
    assert inbox.take(0.0) == [RetryRequested()]
