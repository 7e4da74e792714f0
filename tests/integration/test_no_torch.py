"""The supervising process and the commands for looking never import torch, nor what only the daemon needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sda_daemon.models import ModelMetadata, save_model_from_checkpoint
from tests.daemon_process import DaemonProcess


def run_and_list_modules(*arguments: str) -> set[str]:
    """Run one command in a fresh process and return the modules that it imported."""
    program = (
        "import sys; from sda_daemon.cli.app import run_app; code = run_app(sys.argv[1:]);"
        "print('MODULES', code, *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    line = next(line for line in done.stderr.splitlines() if line.startswith("MODULES "))
    assert line.split()[1] == "0", done.stderr
    return set(line.split()[2:])


@pytest.mark.parametrize("command", [["run", "--once"], ["models", "list"], ["models", "list", "--json"]])
def test_command_never_imports_torch(
    command: list[str], daemon: DaemonProcess, drop: Callable[..., Path], small_checkpoints: Callable[..., Path]
) -> None:
    """A fresh process that converts or lists has no torch in it."""
    save_model_from_checkpoint(small_checkpoints(1), ModelMetadata(name="a"), daemon.models_dir)
    drop(daemon.drop / "b" / "x.pt", seed=2)
    daemon.write_config()
    modules = run_and_list_modules(*command, "--config", str(daemon.config))
    assert "sda_daemon.library.catalog" in modules
    assert not {"torch", "numpy"} & modules


@pytest.mark.parametrize(
    "command",
    [
        ["models", "list"],
        ["models", "search", "a"],
        ["models", "repair", "--dry-run"],
        ["status"],
        ["retry", "--all"],
    ],
    ids=" ".join,
)
def test_commands_that_look_import_nothing_of_the_daemon(
    command: list[str], daemon: DaemonProcess, small_checkpoints: Callable[..., Path]
) -> None:
    """Neither what watches folders, nor what runs workers, nor what logs: also while a daemon is at work."""
    save_model_from_checkpoint(small_checkpoints(1), ModelMetadata(name="a"), daemon.models_dir)
    daemon.start()
    modules = run_and_list_modules(*command, "--config", str(daemon.config))
    assert "sda_daemon.settings.loading" in modules
    assert not {"watchdog", "pebble", "structlog"} & modules


def test_the_library_never_imports_torch() -> None:
    """Importing and using `sda_daemon.library` works where there is no torch."""
    program = """
import sys, tempfile, pathlib
sys.modules["torch"] = None
from sda_daemon.library import ModelLibrary
library = ModelLibrary(pathlib.Path(tempfile.mkdtemp()))
library.repair_index(); library.search("x"); library.list_all()
assert not {"jinja2", "pydantic", "yaml", "watchdog"} & set(sys.modules), "what templates and configs need"
from sda_daemon.models import ModelMetadata
"""
    subprocess.run([sys.executable, "-c", program], check=True)
