"""How much a template may do: steps, sizes, and processor time as a backstop.

Every loop, call, filter and operator of a template spends from a budget, and no value may grow large, so a
template cannot run for ever or fill the memory; see `sandbox`. The time limit is there for what nobody thought of.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import date, time, timedelta
from itertools import islice
from types import FrameType
from typing import Any

from jinja2 import Undefined
from jinja2.runtime import LoopContext

MAX_STEPS = 10_000
"""Loop turns, calls, filters and operators of one rendering."""
MAX_WEIGHT = 10_000
"""Characters and items of one value, those inside it included."""
MAX_WORK = 1_000_000
"""Characters that one call may have to go through or make before its result is weighed."""
MAX_BITS = 256
"""Of a whole number."""
CPU_LIMIT_S = 2.0
"""Processor time of one rendering in seconds."""


class OverBudgetError(Exception):
    """A template does too much."""


class Budget:
    """What one rendering may still do.

    Args:
        facts: what the template knows; for messages about what it does not.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.missing: tuple[Any, str] | None = None
        """Object (None for the facts themselves) and name of the fact that was missing."""
        self._steps = MAX_STEPS

    def spend(self, steps: int = 1) -> None:
        """Take note of work.

        Raises:
            OverBudgetError: it was too much.
        """
        self._steps -= steps
        if self._steps < 0:
            raise OverBudgetError(f"it takes more than {MAX_STEPS} steps")


current: ContextVar[Budget] = ContextVar("current")
"""The budget of the rendering that is under way."""


def weigh(value: Any, limit: int = MAX_WEIGHT) -> int:
    """Return characters and items of a value, those inside it included.

    Raises:
        OverBudgetError: more than `limit`; found without looking at more than that.
    """
    total = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        total += 1
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, Undefined):
            item._fail_with_undefined_error()
        elif isinstance(item, int) and item.bit_length() > MAX_BITS:
            raise OverBudgetError(f"a number is larger than 2^{MAX_BITS}")
        elif isinstance(item, dict):
            total += len(item)
            if total <= limit:
                waiting += item
                waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            if total + len(item) <= limit:
                waiting += item
            else:
                total += len(item)
        if total > limit:
            raise OverBudgetError(f"a value grows beyond {limit} characters or items")
    return total


_ATOMS = (str, bytes, int, float, date, time, timedelta, dict, list, tuple, set, frozenset, range, Undefined)


def weighed(value: Any) -> Any:
    """Return a value that is known to be small; what is computed bit by bit is made a list.

    Raises:
        OverBudgetError: it is too large.
    """
    if value is None or isinstance(value, Undefined | LoopContext | range):
        return value
    if not isinstance(value, _ATOMS) and hasattr(value, "__iter__"):
        value = list(islice(value, MAX_WEIGHT + 1))
    weigh(value)
    return value


def magnitude(value: Any) -> int:
    """Return how large a result a call might have because of this argument."""
    if isinstance(value, bool) or value is None or isinstance(value, Undefined):
        return 1
    if isinstance(value, int):
        return abs(value)
    return weigh(value) if isinstance(value, str | bytes | list | tuple | dict) else 1


@contextlib.contextmanager
def cpu_limit(limit_s: float = CPU_LIMIT_S) -> Iterator[None]:
    """Cut off what runs inside after so much processor time (of the main thread only: signals go there).

    Raises:
        OverBudgetError: cut off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cut(_number: int, _frame: FrameType | None) -> None:
        raise OverBudgetError(f"it takes more than {limit_s:g} s")

    before = signal.signal(signal.SIGVTALRM, cut)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before if before is not None else signal.SIG_DFL)
