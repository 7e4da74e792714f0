"""Drives a real daemon process: start, wait for events, signal, look at its library."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from sda_daemon.library import ModelEntry, ModelLibrary
from tests import permissions

DEADLINE_S = float(os.environ.get("SDA_TEST_DEADLINE_S", "90"))
"""How long a condition may take; only ever used up by a test that fails."""
Event = dict[str, Any]


PAUSE_S = 0.25
"""Between two looks that start a process: more of them would take the CPU from what is waited for."""


def eventually(
    condition: Callable[[], Any], what: str = "", deadline_s: float = DEADLINE_S, pause_s: float = 0.02
) -> Any:
    """Wait until the condition gives something true and return that; look again after a pause."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never happened: {what or condition}"
        time.sleep(pause_s)


def patch_workers(folder: Path, body: str) -> dict[str, str]:
    """Return an environment in which every worker process runs `body` around reading a checkpoint.

    What happens to real files and processes then is real; only the moment is chosen. In `body`, `path` is the
    checkpoint, `read(path)` reads it, and `once()` is true the first time, across processes.
    """
    folder.mkdir()
    marker = folder / "done"
    program = f"""
import os, signal, sys, time
if "spawn_main" in " ".join(sys.orig_argv):
    import sda_daemon.models.checkpoint as checkpoint
    read = checkpoint.read_checkpoint
    def once():
        if os.path.exists({str(marker)!r}):
            return False
        open({str(marker)!r}, "w").close()
        return True
    def patched(path):
{textwrap.indent(textwrap.dedent(body), "        ")}
    checkpoint.read_checkpoint = patched
"""
    (folder / "sitecustomize.py").write_text(program)
    return {"PYTHONPATH": str(folder)}


class DaemonProcess:
    """One daemon on folders below `base`; may be started again after it has ended."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.drop = base / "drop"
        self.models_dir = base / "models"
        self.state_dir = base / "state"
        self.config = base / "config.yaml"
        self.log = base / "daemon.log"
        self.drop.mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self._read_bytes = 0
        self._logged: list[Event] = []
        self.settings: dict[str, Any] = {
            "models_dir": "models",
            "state_dir": "state",
            "watch": [{"path": "drop", "settle_s": 0.5}],
            # Each worker imports torch, which is most of what these tests cost: where checkpoints come one by one,
            # one is enough. Tests of what goes on side by side set two, as the default is.
            "workers": 1,
        }

    def write_config(self, **changes: Any) -> Path:
        """Write the config file, with changes of its top-level keys."""
        self.settings.update(changes)
        self.config.write_text(yaml.safe_dump(self.settings))
        return self.config

    def start(
        self, *arguments: str, wait: bool = True, env: dict[str, str] | None = None, bound: bool = False
    ) -> DaemonProcess:
        """Start it, with the config as it is; wait until its first rescans are done.

        A daemon that is `bound` may only do what permissions say, also if root has started it.
        """
        if not self.config.exists():
            self.write_config()
        before = len(self.events())
        command = [sys.executable, "-m", "sda_daemon", "run", "--config", str(self.config), *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                permissions.bound(command) if bound else command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
            )
        if wait:
            roots = len(self.settings["watch"])
            self.wait_for("rescan.finished", count=roots, after=before)
        return self

    def start_within(self, program: str) -> None:
        """Start it within a program that can do something to it from inside; that ends with `run_app(sys.argv[1:])`."""
        if not self.config.exists():
            self.write_config()
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", program, "run", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_for("rescan.finished")

    @property
    def pid(self) -> int:
        """Process id of the running daemon."""
        assert self.process is not None
        return self.process.pid

    def events(self, name: str | None = None, after: int = 0, **fields: Any) -> list[Event]:
        """Return the events logged so far, by name and field values; text that is no JSON is an event `text`."""
        self._read_on()
        return [
            event
            for event in self._logged[after:]
            if name in (None, event.get("event")) and all(event.get(k) == v for k, v in fields.items())
        ]

    def _read_on(self) -> None:
        """Take in the whole lines that the log has grown by."""
        if not self.log.exists():
            return
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(newline)
        for line in whole.decode(errors="replace").split("\n") if newline else ():
            try:
                self._logged.append(json.loads(line))
            except ValueError:
                self._logged.append({"event": "text", "text": line})

    def mark(self) -> int:
        """Return a position in the log, for `after`."""
        return len(self.events())

    def wait_for(
        self, name: str, count: int = 1, after: int = 0, deadline_s: float = DEADLINE_S, **fields: Any
    ) -> list[Event]:
        """Wait until an event has been logged so often; fail at once if the daemon has ended without it."""

        def logged() -> list[Event]:
            ended = self.process is not None and self.process.poll() is not None
            found = self.events(name, after, **fields)
            if len(found) >= count:
                return found
            assert not ended, f"the daemon ended before {name} {fields}:\n{self.tail()}"
            return []

        try:
            result: list[Event] = eventually(logged, f"{count} x {name} {fields}", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None
        return result

    def tail(self, lines: int = 40) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def models(self) -> list[ModelEntry]:
        """Return the library's entries, read anew."""
        return ModelLibrary(self.models_dir).list_all()

    def files(self) -> list[str]:
        """Return the names of the model files."""
        return sorted(path.name for path in self.models_dir.glob("*.sda"))

    def wait_for_models(self, count: int, deadline_s: float = DEADLINE_S) -> list[ModelEntry]:
        """Wait until the index has so many entries."""

        def there() -> bool:
            if len(self.models()) == count:
                return True
            assert self.process is None or self.process.poll() is None, f"the daemon ended\n{self.tail()}"
            return False

        try:
            eventually(there, f"{count} models", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}, there are {len(self.models())}\n{self.tail()}") from None
        return self.models()

    def cli(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run another command with this daemon's config."""
        return subprocess.run(
            [sys.executable, "-m", "sda_daemon", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=check,
        )

    def status(self, until: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Return what `status --json` shows, as soon as `until` is true of it."""

        def shown() -> dict[str, Any]:
            facts = json.loads(self.cli("status", "--json").stdout)
            return facts if until(facts) else {}

        found: dict[str, Any] = eventually(shown, "status shows what is expected", pause_s=PAUSE_S)
        return found

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop and return its exit code."""
        self.send(number)
        return self.wait()

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end and return its exit code."""
        assert self.process is not None
        return self.process.wait(deadline_s)

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
