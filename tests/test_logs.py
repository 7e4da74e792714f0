"""Whatever is said in this process comes out as an event."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon import logs
from sda_daemon.service.journal import encode_entry
from tests.odd_texts import ODD_TEXTS

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


ODD = r"""
import sys
from sda_daemon import events
from sda_daemon.logs import configure_logging
configure_logging("info", sys.argv[1])
name = "R\ud800in \x1b[2J\udcff\n\x07"
values = {"path": "/drop/\udcff\x1b.pt", "model_id": "\ud800", "name": name, "file": "x" * 10**6}
events.CONVERSION_SUCCEEDED(**values, duration_s=float("nan"))
events.CONVERSION_FAILED(path="a", kind="b", reason="c", permanent=10**5000, attempt=10**400, retry_in_s=float("inf"))
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_odd_values_in_a_log(log_format: str, encoding: str) -> None:
    """Lone surrogates, control characters, numbers without end, a megabyte of name: a line each, valid and bounded."""
    made = subprocess.run(
        [sys.executable, "-c", ODD, log_format],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert made.stdout == b""
    text = made.stderr.decode("utf-8", "strict")
    assert "\x1b" not in text
    assert "\x07" not in text
    assert len(text) < 30_000
    lines = text.splitlines()
    assert len(lines) == 2
    if log_format == "json":
        first, second = (json.loads(line, parse_constant=refuse) for line in lines)
        assert first["name"] == "R\ufffdin \x1b[2J\ufffd\n\x07"
        assert (first["path"], first["model_id"], first["duration_s"]) == ("/drop/\ufffd\x1b.pt", "\ufffd", None)
        assert first["file"] == "x" * 9_999 + "…"
        assert (second["permanent"], second["attempt"], second["retry_in_s"]) == (None, None, None)


def refuse(constant: str) -> Any:
    """Python's json reads what no other program does, unless it is told not to."""
    raise ValueError(constant)


@given(st.dictionaries(st.sampled_from(["path", "name", "reason", "attempt"]),
       ODD_TEXTS | st.integers() | st.floats() | st.lists(st.text())
       | st.integers(4301, 5000).map(lambda digits: 10**digits)))  # fmt: skip
def test_any_event_can_be_told_the_journal(values: dict[str, Any]) -> None:
    """One line of plain text as its message, each value as a field, a path byte for byte."""
    fields = logs.journal_fields({"event": "conversion.failed", "level": "error", **values})
    entry = encode_entry(fields)
    assert entry.startswith(b"MESSAGE=")
    fields["MESSAGE"].encode("utf-8", "strict")
    assert "\n" not in fields["MESSAGE"]
    assert "\x1b" not in fields["MESSAGE"]
    if isinstance(values.get("path"), str) and "\n" not in values["path"] and os.fsencode("\udcff") == b"\xff":
        try:
            raw = os.fsencode(values["path"])
        except UnicodeEncodeError:
            return
        assert b"SDA_PATH=" + raw + b"\n" in entry


HOSTILE = r"""
import sys
from pathlib import Path
from sda_daemon import events
from sda_daemon.logs import configure_logging
sys.stderr.isatty = lambda: True  # with colours
configure_logging("info", "console")
class Named:
    def __repr__(self): return "\x1b]0;owned\x07"
bad = "a\x1b[2J\x9b31m\nforged line\r\u202egnp.\u2028\x7f"
events.CONVERSION_FAILED(path=Path(bad), kind=[bad, {bad: bad}], reason=bad, permanent=Named(), attempt={bad: 1})
events.PACKAGE_SAID(package=bad, text=bad)
events.WORKER_OUTPUT(text=bad)
"""


def test_b40_no_value_takes_over_the_terminal() -> None:
    """Whatever it is and however deep inside: a line for each event, and no escape sequence but our own colours."""
    made = subprocess.run(
        [sys.executable, "-c", HOSTILE],
        capture_output=True,
        check=True,
        env={**os.environ, "SDA_DAEMON_STRICT_EVENTS": "", "NO_COLOR": "", "PYTHONIOENCODING": "utf-8"},
    )
    text = made.stderr.decode()
    plain = re.sub(r"\x1b\[\d*m", "", text)
    assert plain != text  # it is coloured
    assert len(plain.splitlines()) == 3, plain
    assert all(line.isprintable() for line in plain.split("\n")), plain
    assert plain.count("forged line") == 9
