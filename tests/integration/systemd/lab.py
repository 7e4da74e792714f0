"""Drives a real systemd in namespaces of its own: commands, files, units, the journal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import daemon_process

SCRIPT = Path(__file__).with_name("lab.sh")
REPOSITORY = Path(__file__).resolve().parents[3]
CANNOT_RUN = 77
COMMAND = [sys.executable, "-m", "sda_daemon"]
UNITS = Path("/etc/systemd/system")
SERVICE = "sda-daemon.service"
DROP = Path("/srv/sda-daemon/checkpoints")
MODELS = Path("/srv/sda-daemon/models")
USER_ID = 4321

# The user's manager without logind and its bus, which the lab does not have.
_USER_MANAGER = {
    "user-runtime-dir@.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
    "ExecStart=/usr/bin/install -d -m 0700 -o %i -g %i /run/user/%i\n",
    "user@.service.d/lab.conf": "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n",
}
Entry = dict[str, Any]
eventually = partial(daemon_process.eventually, pause_s=daemon_process.PAUSE_S)
"""Waits like the other tests do, but with pauses: every look starts processes."""


class Lab:
    """One booted systemd, with the machine's files below it and nothing that is written lasting."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._as: list[str] = []

    def boot(self) -> None:
        """Boot it; skips the test where that cannot be done."""
        if sys.platform != "linux" or shutil.which("unshare") is None:
            pytest.skip("there are no namespaces here")
        for name, text in _USER_MANAGER.items():
            path = self.folder / "units" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        visible = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
        binds = " ".join(f"{path}:{path}" for path in visible)
        done = subprocess.run(
            ["bash", SCRIPT, "start", self.folder],
            env={**os.environ, "BIND": binds},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode == CANNOT_RUN:
            pytest.skip(f"a systemd of our own cannot be booted here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        # The interpreter may lie in root's home; other users must get to it.
        for path in visible:
            for parent in path.parents:
                self.run("chmod", "a+x", str(parent), check=False)

    def shut_down(self) -> None:
        """End everything in it."""
        if (self.folder / "pid").exists():
            subprocess.run(["bash", SCRIPT, "stop", self.folder], capture_output=True, check=True)

    # --- commands and files -----------------------------------------------------------------------

    def run(self, *command: str, check: bool = True, input: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in it; shows what the command said where it fails."""
        done = subprocess.run(
            ["bash", SCRIPT, "exec", self.folder, *self._as, *command], input=input, capture_output=True, check=False
        )
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check and result.returncode != 0:
            raise AssertionError(f"{command} -> {result.returncode}\n{result.stdout}{result.stderr}\n{self.log()}")
        return result

    def sda(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run this `sda-daemon` in it."""
        return self.run(*COMMAND, *arguments, check=check)

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run systemctl, of the user's manager after `become_user`."""
        return self.run("systemctl", *(["--user"] if self._as else []), *arguments, check=check)

    def put(self, path: Path, content: str | bytes) -> None:
        """Write a file in it, making its folder."""
        data = content.encode() if isinstance(content, str) else content
        self.run("sh", "-c", 'mkdir -p "$(dirname "$0")" && cat >"$0.new" && mv "$0.new" "$0"', str(path), input=data)

    def read(self, path: Path) -> str:
        """Return a file's text."""
        return self.run("cat", str(path)).stdout

    def exists(self, path: Path) -> bool:
        """Tell whether there is such a file or folder."""
        return self.run("test", "-e", str(path), check=False).returncode == 0

    def become_user(self) -> Path:
        """From now on run everything as a user with a manager of its own; return the user's home."""
        self.run("useradd", "--create-home", "--uid", str(USER_ID), "musician")
        self.run("systemctl", "start", f"user@{USER_ID}.service")
        ids = ["--reuid", str(USER_ID), "--regid", str(USER_ID), "--clear-groups"]
        environment = ["HOME=/home/musician", "USER=musician", f"XDG_RUNTIME_DIR=/run/user/{USER_ID}"]
        self._as = ["setpriv", *ids, "env", *environment]
        return Path("/home/musician")

    # --- the service ------------------------------------------------------------------------------

    def show(self, name: str, service: str = SERVICE) -> str:
        """Return a property of a service."""
        return self.systemctl("show", "--value", "-P", name, service).stdout.strip()

    def wait_until(self, what: str, value: str, service: str = SERVICE) -> None:
        """Wait until a property of a service has a value."""
        try:
            eventually(lambda: self.show(what, service) == value, f"{what}={value}")
        except AssertionError as error:
            raise AssertionError(f"{error}, but {self.show(what, service)}\n{self.log()}") from None

    def entries(self, *matches: str) -> list[Entry]:
        """Return what is in the journal."""
        command = ["--no-pager", "--all", "-o", "json", *matches]
        done = subprocess.run(
            ["bash", SCRIPT, "exec", self.folder, "journalctl", *command], capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_for(self, event: str, *matches: str, count: int = 1) -> list[Entry]:
        """Wait until an event is in the journal so often."""

        def logged() -> list[Entry]:
            found = self.entries(f"SDA_EVENT={event}", *matches)
            return found if len(found) >= count else []

        try:
            found: list[Entry] = eventually(logged, f"{count} x {event} {matches}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return found

    def log(self) -> str:
        """Return the end of the journal as a person reads it."""
        command = ["bash", str(SCRIPT), "exec", str(self.folder), "journalctl", "--no-pager", "-n", "60"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def tune(self, lines: str, service: str = SERVICE) -> None:
        """Add lines to the service in a drop-in, for what would take too long in a test."""
        self.put(UNITS / f"{service}.d" / "50-test.conf", f"[Service]\n{lines}\n")

    def workers(self) -> list[str]:
        """Return the process ids of the worker processes."""
        found = self.run("pgrep", "-P", self.show("MainPID"), "-f", "spawn_main", check=False).stdout.split()
        return [pid for pid in found if "resource_tracker" not in self.read(Path(f"/proc/{pid}/cmdline"))]
