"""Sets up structlog: readable lines on a terminal, entries with fields in the journal, JSON lines elsewhere.

Everything goes to stderr, or beside it to the journal that stderr leads to.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TextIO

import structlog

from sda_daemon import events
from sda_daemon.plain_json import presentable
from sda_daemon.service.journal import (
    STREAM_VARIABLE,
    Journal,
    encode_entry,
    field_name,
    field_value,
    is_journal_stream,
)
from sda_daemon.telling import Stream, Teller
from sda_daemon.wording import clean, shortened

IDENTIFIER = "sda-daemon"
LONGEST_LOGGED = 10_000
"""Most characters of one value of an event; no path is longer."""
LAST_WORDS_S = 2.0
"""How long the end of the process waits for what is still to be written, in seconds."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}


def configure_logging(level: str, log_format: str, stream: TextIO | None = None) -> str:
    """Direct all events to `stream` (stderr) and return the format that was chosen.

    They are put into words where they happen, and written by a thread: see `telling`.

    Args:
        level: "debug", "info", "warning" or "error".
        log_format: "console", "json", "journal", or "auto": journal where the stream is the journal,
            console on a terminal, else json.
        stream: where to; a file, a terminal or a pipe.
    """
    target = stream or sys.stderr
    on_journal = _is_journal(target)  # asked in any case: workers must not inherit the journal's variable
    chosen = log_format
    if log_format == "auto":
        chosen = "journal" if on_journal else "console" if target.isatty() else "json"
    teller = _teller()
    output = Stream(target.fileno())
    to_line: Callable[[dict[str, Any]], _Line]
    if chosen == "console":
        colors = target.isatty() and not os.environ.get("NO_COLOR")
        to_line = _ConsoleLines(output, target.encoding or "utf-8", colors=colors)
    elif chosen == "journal":
        to_line = _JournalLines(output, Journal())
    else:
        to_line = _JsonLines(output)
    stamp = structlog.processors.TimeStamper(
        fmt="%H:%M:%S" if chosen == "console" else "iso", utc=chosen != "console"
    )  # of the moment of the event, not of that of its writing
    teller.configure(_LostLines(stamp, to_line))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp,
            _InWords(to_line, teller),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Logger.maker(teller),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_OtherCode(logging.WARNING)], force=True)
    return chosen


def flush_log(timeout_s: float = LAST_WORDS_S) -> bool:
    """Wait until all events are written, but no longer than this; return whether they are."""
    return not _teller.cache_info().currsize or _teller().flush(timeout_s)


@functools.cache
def _teller() -> Teller:
    """Make the one thread that writes what this process logs; it ends with the process, after what it has to do."""
    teller = Teller()
    atexit.register(teller.flush, LAST_WORDS_S)
    return teller


@dataclass(frozen=True, slots=True)
class _Line:
    """An event in words: how it is written, and how much memory it takes until then."""

    tell: Callable[[], None]
    size_bytes: int


class _InWords:
    """Makes the line of an event. What cannot be put into words is counted: it harms nothing that it is about."""

    def __init__(self, to_line: Callable[[dict[str, Any]], _Line], teller: Teller) -> None:
        self._to_line, self._teller = to_line, teller

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> tuple[Any, ...]:
        try:
            return (self._to_line(dict(event)),), {}
        except Exception:  # noqa: BLE001 - telling must not break doing
            self._teller.miss()
            raise structlog.DropEvent from None


class _Logger:
    """What structlog hands finished lines to."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller

    @classmethod
    def maker(cls, teller: Teller) -> Callable[..., _Logger]:
        """Return what structlog makes loggers with."""
        logger = cls(teller)
        return lambda *_arguments: logger

    def msg(self, line: _Line) -> None:
        """Have a line written."""
        self._teller.put(line.tell, line.size_bytes)

    debug = info = warning = error = critical = exception = log = msg


class _LostLines:
    """Makes the line that says how many were lost."""

    def __init__(self, stamp: Any, to_line: Callable[[dict[str, Any]], _Line]) -> None:
        self._stamp, self._to_line = stamp, to_line

    def __call__(self, count: int) -> Callable[[], None]:
        event = {"level": "warning", "event": events.LOG_LINES_LOST.name, "count": count}
        return self._to_line(self._stamp(None, "warning", event)).tell


class _JsonLines:
    """An event as JSON that every program reads, whatever names and paths are in it."""

    def __init__(self, output: Stream) -> None:
        self._output = output
        self._render = structlog.processors.JSONRenderer(serializer=_json_line)

    def __call__(self, event: dict[str, Any]) -> _Line:
        line = self.bytes_of(event)
        return _Line(functools.partial(self._output.write, line), len(line))

    def bytes_of(self, event: dict[str, Any]) -> bytes:
        """Return the line itself."""
        ordered = _event_first(dict(structlog.processors.dict_tracebacks(None, "", event)))
        return f"{self._render(None, '', ordered)!s}\n".encode()


class _JournalLines:
    """An event as an entry of the journal; one that cannot be sent is written to the stream as JSON."""

    def __init__(self, output: Stream, journal: Journal) -> None:
        self._output, self._journal = output, journal
        self._json = _JsonLines(output)

    def __call__(self, event: dict[str, Any]) -> _Line:
        event = dict(structlog.processors.format_exc_info(None, "", event))
        entry = encode_entry(journal_fields(event))
        return _Line(functools.partial(self._send, entry, presentable(event, LONGEST_LOGGED)), 2 * len(entry))

    def _send(self, entry: bytes, event: dict[str, Any]) -> None:
        try:
            self._journal.send_entry(entry)
        except OSError:
            self._output.write(self._json.bytes_of(event))


class _ConsoleLines:
    """An event as a person reads it in a terminal, which no value of it can take over."""

    def __init__(self, output: Stream, encoding: str, *, colors: bool) -> None:
        self._output, self._encoding = output, encoding
        self._render = structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=26)

    def __call__(self, event: dict[str, Any]) -> _Line:
        event = dict(structlog.processors.format_exc_info(None, "", event))
        line = f"{self._render(None, '', _visible(event))}\n".encode(self._encoding, "backslashreplace")
        return _Line(functools.partial(self._output.write, line), len(line))


class _OtherCode(logging.Handler):
    """Makes events of what packages tell Python's logging: every line of ours can be parsed."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - values that do not fit the message of somebody else's code
            text = str(record.msg)
        # watchdog says so of itself, now and then, when a watch is ended as it should be.
        if "called when the thread is inactive" not in text:
            events.PACKAGE_SAID(package=record.name, text=text)


def print_error(text: str) -> None:
    """Print the last words of a command on stderr, after its events; in the journal as an entry of priority `err`."""
    if not flush_log():
        return None  # whoever reads stderr hangs: nothing more can be said there
    if _is_journal(sys.stderr):
        try:
            fields = {"MESSAGE": text, "PRIORITY": "3", "SYSLOG_IDENTIFIER": IDENTIFIER}
            return Journal(timeout_s=LAST_WORDS_S).send(fields)
        except OSError:
            pass  # the journal's socket is out of reach; its stream is not
    with contextlib.suppress(OSError):  # nobody can be told that it cannot be told
        print(f"{IDENTIFIER}: {text}", file=sys.stderr, flush=True)
    return None


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


def _visible(event: dict[str, Any]) -> dict[str, Any]:
    """Let no control character of a name, a path or anything else reach the terminal."""
    shown = presentable(event, LONGEST_LOGGED)
    return {clean(key): _visible_value(key, value) for key, value in shown.items()}


def _visible_value(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if key == "exception":  # a traceback keeps its lines
        return "\n".join(clean(line) for line in str(value).split("\n"))
    return clean(value if isinstance(value, str) else repr(value), LONGEST_LOGGED)


def _event_first(event: dict[str, Any]) -> dict[str, Any]:
    """Put time, level and name in front, where a person looks for them in a JSON line."""
    first = ("timestamp", "level", "event")
    return {key: event[key] for key in (*first, *(key for key in event if key not in first)) if key in event}
