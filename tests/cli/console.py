"""Runs the installed `sda-daemon` command the way a shell does, and keeps what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("sda-daemon")
_GOLDEN = Path(__file__).parent / "golden"
UPDATE = bool(os.environ.get("SDA_UPDATE_GOLDEN"))
_MASKS = (
    (re.compile(r"sha256:(?:[0-9a-f][\n ]*){63}[0-9a-f]"), "sha256:<digest>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?\+00:00"), "<moment>"),
    (re.compile(r"~\d{8}T\d{6}"), "~<stamp>"),
    (re.compile(r"\d+\.\d+\.\d+\+cpu"), "<torch>"),
    (re.compile(r"sda-daemon \d+\.\d+\.\d+"), "sda-daemon <version>"),
    (re.compile(r"20(?:2[7-9]|[3-9]\d)-\d\d-\d\d(?: \d\d:\d\d)?|2026-1[12]-\d\d \d\d:\d\d"), "<date>"),
    (re.compile(r"/[^\s=:]*/here/"), "<folder>/"),
    (re.compile(r"/[^\s=:]*/bin/(?=sda-daemon|python)"), "<bin>/"),
    (re.compile(r"models-[0-9a-f]{8}\b"), "models-<digest>"),
    (re.compile(r"in \d+(?:\.\d)? s\b"), "in <time>"),
)


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command printed and how it ended."""

    stdout: str
    stderr: str
    code: int

    def json(self) -> Any:
        """Return stdout as JSON."""
        return json.loads(self.stdout)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return a clean environment: no config of this machine, no colours, UTC."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "SDA_DAEMON_STRICT_EVENTS") if key in os.environ}
    return {**kept, "HOME": str(home), "TZ": "UTC", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8", **more}


def run(*arguments: str, cwd: Path, stdin: str | None = None, **variables: str) -> Printed:
    """Run the command in a folder; variables such as COLUMNS="80" come on top of a clean environment."""
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env=environment(cwd, **variables),
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Printed(done.stdout, done.stderr, done.returncode)


def masked(text: str) -> str:
    """Return a text in which what differs from run to run is replaced."""
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


def check_golden(name: str, printed: Printed) -> None:
    """Compare with the kept output; with SDA_UPDATE_GOLDEN=1 in the environment, keep this one instead."""
    text = masked(printed.stdout)
    if printed.stderr:
        text += f"--- stderr\n{masked(printed.stderr)}"
    text += f"--- exit code {printed.code}\n"
    path = _GOLDEN / f"{name}.txt"
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing; run with SDA_UPDATE_GOLDEN=1 and look at it"
    assert text == path.read_text(encoding="utf-8")
