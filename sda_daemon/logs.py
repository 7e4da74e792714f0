"""Sets up structlog: readable lines on a terminal, entries with fields in the journal, JSON lines elsewhere.

Everything goes to stderr, or beside it to the journal that stderr leads to.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from typing import Any, TextIO

import structlog

from sda_daemon import events
from sda_daemon.plain_json import presentable
from sda_daemon.service.journal import STREAM_VARIABLE, Journal, field_name, field_value, is_journal_stream
from sda_daemon.wording import clean, shortened

IDENTIFIER = "sda-daemon"
LONGEST_LOGGED = 10_000
"""Most characters of one value of an event; no path is longer."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}


def configure_logging(level: str, log_format: str, stream: TextIO | None = None) -> str:
    """Direct all events to `stream` (stderr) and return the format that was chosen.

    Args:
        level: "debug", "info", "warning" or "error".
        log_format: "console", "json", "journal", or "auto": journal where the stream is the journal,
            console on a terminal, else json.
        stream: where to.
    """
    target = stream or sys.stderr
    on_journal = _is_journal(target)  # asked in any case: workers must not inherit the journal's variable
    chosen = log_format
    if log_format == "auto":
        chosen = "journal" if on_journal else "console" if target.isatty() else "json"
    shared: list[Any] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    to_json: list[Any] = [
        structlog.processors.dict_tracebacks,
        _event_first,
        structlog.processors.JSONRenderer(serializer=_json_line),
    ]
    if chosen == "json":
        renderers = [_utc_time(), *to_json]
    elif chosen == "journal":
        renderers = [structlog.processors.format_exc_info, _JournalSender(Journal()), _utc_time(), *to_json]
    else:
        colors = target.isatty() and not os.environ.get("NO_COLOR")
        local_time = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        renderers = [
            _visible,
            local_time,
            structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=26),
        ]
    structlog.configure(
        processors=shared + renderers,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_OtherCode(logging.WARNING)], force=True)
    return chosen


class _OtherCode(logging.Handler):
    """Makes events of what packages tell Python's logging: every line of ours can be parsed."""

    def emit(self, record: logging.LogRecord) -> None:
        # watchdog says so of itself, now and then, when a watch is ended as it should be.
        if "called when the thread is inactive" not in record.getMessage():
            events.PACKAGE_SAID(package=record.name, text=record.getMessage())


def print_error(text: str) -> None:
    """Print the last words of a command on stderr; in the journal they are an entry of priority `err`."""
    if _is_journal(sys.stderr):
        try:
            return Journal().send({"MESSAGE": text, "PRIORITY": "3", "SYSLOG_IDENTIFIER": IDENTIFIER})
        except OSError:
            pass  # the journal's socket is out of reach; its stream is not
    return print(f"{IDENTIFIER}: {text}", file=sys.stderr)


def journal_fields(event: dict[str, Any]) -> dict[str, str]:
    """Return the journal entry for an event: a sentence, a priority, and each key as a field."""
    known = {key: value if isinstance(value, str) else presentable(value) for key, value in event.items()}
    values = {key: value for key, value in known.items() if key not in ("event", "level") and value is not None}
    return {
        # In one line of plain text: the journal shows a message with control characters as a blob.
        "MESSAGE": clean(events.sentence_of(event["event"], values), LONGEST_LOGGED),
        "PRIORITY": _PRIORITIES[event["level"]],
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "SDA_EVENT": event["event"],
        **{field_name(key): shortened(field_value(value), LONGEST_LOGGED) for key, value in values.items()},
    }


class _JournalSender:
    """Sends each event to the journal; one that cannot be sent goes on to be printed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __call__(self, _logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        try:
            self._journal.send(journal_fields(event))
        except OSError:
            return event
        raise structlog.DropEvent


def _is_journal(target: TextIO) -> bool:
    try:
        return is_journal_stream(target.fileno(), _journal_stream())
    except OSError:
        return False  # a stream without a file, such as a buffer


@functools.cache
def _journal_stream() -> str:
    """`JOURNAL_STREAM`, taken out of the environment: it is about our stderr, not about that of our workers."""
    return os.environ.pop(STREAM_VARIABLE, "")


def _json_line(event: dict[str, Any], **settings: Any) -> str:
    """Return an event as JSON that every program reads, whatever names and paths are in it."""
    return json.dumps(presentable(event, LONGEST_LOGGED), allow_nan=False, **settings)


def _visible(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Let no control character of a name or a path reach the terminal."""
    shown = presentable(event, LONGEST_LOGGED)
    return {key: clean(value) if isinstance(value, str) else value for key, value in shown.items()}


def _utc_time() -> Any:
    return structlog.processors.TimeStamper(fmt="iso", utc=True)


def _event_first(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Put time, level and name in front, where a person looks for them in a JSON line."""
    first = ("timestamp", "level", "event")
    return {key: event[key] for key in (*first, *(key for key in event if key not in first)) if key in event}
