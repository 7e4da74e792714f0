"""Who runs the tests: root, for whom permissions do not count, or an ordinary user.

A test that only one of them can run says so with a mark and the reason: `@pytest.mark.needs_root("mounts a disk")` or
`@pytest.mark.needs_user("…")`. Programs that the tests start can be held to permissions for root too: see `bound`.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

IS_ROOT = os.geteuid() == 0
_NEEDS = {"needs_root": ("needs root", IS_ROOT), "needs_user": ("needs an ordinary user", not IS_ROOT)}
_TITLES = {"needs root": "because they need root", "needs an ordinary user": "because they need an ordinary user"}
_SKIPPED = "Skipped: "

_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _SETPCAP = 0, 1, 2, 3, 8
_GIVE_UP = f"""
import ctypes, os, sys
for capability in {(_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER)}:
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, effective at the next exec
os.execvp(sys.argv[1], sys.argv[1:])
"""


def skip_for_others(items: Iterable[pytest.Item]) -> None:
    """Have the tests skipped that who runs them cannot run."""
    for item in items:
        for name, (need, is_met) in _NEEDS.items():
            mark = item.get_closest_marker(name)
            if mark is not None and not mark.args:
                raise pytest.UsageError(f"{item.nodeid}: {name} wants a reason")
            if mark is not None and not is_met:
                item.add_marker(pytest.mark.skip(reason=f"{need}: {mark.args[0]}"))


def summary_of(skipped: Iterable[pytest.TestReport]) -> Iterator[str]:
    """Yield the lines that tell which tests were skipped because of who runs them, those of both kinds."""
    tests: dict[str, dict[str, list[str]]] = {need: defaultdict(list) for need in _TITLES}
    for report in skipped:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        need, _, reason = text.removeprefix(_SKIPPED).partition(": ")
        if need in tests:
            tests[need][reason].append(report.nodeid)
    for need, title in _TITLES.items():
        count = sum(map(len, tests[need].values()))
        yield f"skipped {title}: {count or 'none'}"
        for reason, names in sorted(tests[need].items()):
            yield f"  {reason}:"
            yield from (f"    {name}" for name in sorted(names))


def bound(command: Sequence[str | Path]) -> list[str | Path]:
    """Return a command that runs another as one for whom permissions count, whoever runs the tests.

    Root's files are then its owner's, and no more. Skips the test where root cannot give up its rights.
    """
    status = Path("/proc/self/status").read_text()
    rights = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    if not rights & (1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH):
        return list(command)
    if not rights & 1 << _SETPCAP:
        pytest.skip("root may read everything, and cannot give up its rights here")
    return [sys.executable, "-c", _GIVE_UP, *command]
