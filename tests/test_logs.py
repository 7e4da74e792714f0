"""Whatever is said in this process comes out as an event."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging
from sda_daemon.logs import configure_logging
configure_logging("info", "json")
logging.getLogger("watchdog.observers").warning("the %s is gone", "disk")
logging.getLogger("asyncio").info("nothing of interest")
said = "InotifyEmitter.queue_events() called when the thread is inactive"
logging.getLogger("watchdog.observers.inotify").error(said)
"""


def test_what_packages_log_becomes_events() -> None:
    """Warnings, with the name of who said it; no line on stderr is anything but an event."""
    made = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    (event,) = [json.loads(line) for line in made.stderr.splitlines()]
    assert (event["event"], event["level"]) == ("package.said", "warning")
    assert (event["package"], event["text"]) == ("watchdog.observers", "the disk is gone")
    assert made.stdout == ""
