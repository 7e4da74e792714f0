"""The daemon: one loop that owns all state, and the three things it looks after."""

from sda_daemon.daemon.loop import Daemon

__all__ = ["Daemon"]
