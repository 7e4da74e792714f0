"""The signals that people and commands send to the running daemon."""

from __future__ import annotations

import signal

RETRY_SIGNAL = signal.SIGUSR1
"""Sent by `sda-daemon retry` after it has taken failures out of the ledger."""
