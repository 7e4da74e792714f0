"""Sets up structlog: readable lines on a terminal, JSON lines elsewhere. Everything goes to stderr."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TextIO

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(level: str, log_format: str, stream: TextIO | None = None) -> str:
    """Direct all events to `stream` (stderr) and return the format that was chosen.

    Args:
        level: "debug", "info", "warning" or "error".
        log_format: "console", "json", or "auto": console on a terminal, else json.
        stream: where to.

    """
    target = stream or sys.stderr
    chosen = log_format if log_format != "auto" else ("console" if target.isatty() else "json")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True) if chosen == "json" else _local_time(),
    ]
    if chosen == "json":
        renderers: list[Any] = [structlog.processors.dict_tracebacks, _event_first, structlog.processors.JSONRenderer()]
    else:
        colors = target.isatty() and not os.environ.get("NO_COLOR")
        renderers = [structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=26)]
    structlog.configure(
        processors=shared + renderers,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    return chosen


def _local_time() -> Any:
    return structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)


def _event_first(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Put time, level and name in front, where a person looks for them in a JSON line."""
    first = ("timestamp", "level", "event")
    return {key: event[key] for key in (*first, *(key for key in event if key not in first)) if key in event}
