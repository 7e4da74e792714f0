"""Runs the installed `sda-daemon` command the way a shell does, and keeps what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.permissions import bound

COMMAND = Path(sys.executable).with_name("sda-daemon")
_GOLDEN = Path(__file__).parent / "golden"
UPDATE = bool(os.environ.get("SDA_UPDATE_GOLDEN"))
_MASKS = (
    (re.compile(r"sha256:(?:[0-9a-f][\n ]*){63}[0-9a-f]"), "sha256:<digest>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?\+00:00"), "<moment>"),
    (re.compile(r"~\d{8}T\d{6}"), "~<stamp>"),
    (re.compile(r"\d+\.\d+\.\d+\+\w+"), "<torch>"),
    (re.compile(r"sda-daemon \d+\.\d+\.\d+"), "sda-daemon <version>"),
    (re.compile(r"20(?:2[7-9]|[3-9]\d)-\d\d-\d\d(?: \d\d:\d\d)?|2026-1[12]-\d\d \d\d:\d\d"), "<date>"),
    (re.compile(r"/[^\s=:]*/here/"), "<folder>/"),
    (re.compile(r"/[^\s=:]*/bin/(?=sda-daemon|python)"), "<bin>/"),
    (re.compile(r"models-[0-9a-f]{8}\b"), "models-<digest>"),
    (re.compile(r"in \d+(?:\.\d)? s\b"), "in <time>"),
    # Python 3.11.0 to 3.11.3 write an enum member as getattr(class, name).
    (re.compile(r"import \(10\)(\n  foreign, replaced by stand-ins:\n)    __builtin__\.getattr\n"), r"import (9)\1"),
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


def run(*arguments: str, cwd: Path, stdin: str | None = None, is_bound: bool = False, **variables: str) -> Printed:
    """Run the command in a folder; variables such as COLUMNS="80" come on top of a clean environment.

    Where it `is_bound`, it may only do what permissions say, also if root runs the tests.
    """
    command: list[str | Path] = [COMMAND, *arguments]
    done = subprocess.run(
        bound(command) if is_bound else command,
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


_ONE_AFTER_THE_OTHER = """
import json, os, sys, tempfile
import sda_daemon.conversion.batch, sda_daemon.conversion.verification  # what commands import late
import sda_daemon.daemon.session
from sda_daemon.cli.app import run_app
printed = []
for arguments in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not (child := os.fork()):
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = 1
            try:
                code = run_app(arguments)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = (os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, err))
        printed.append([*texts, code])
json.dump(printed, sys.stdout)
"""


def run_each(commands: Sequence[Sequence[str]], cwd: Path, **variables: str) -> list[Printed]:
    """Run many commands, each in a process of its own, that may only do what permissions say; see `run`.

    The processes are forked off one that has imported the program: that takes a tenth of the time.
    """
    done = subprocess.run(
        bound([sys.executable, "-c", _ONE_AFTER_THE_OTHER, json.dumps(commands)]),
        cwd=cwd,
        env=environment(cwd, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return [Printed(*values) for values in json.loads(done.stdout)]


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
