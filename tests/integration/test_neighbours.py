"""What lies beside a checkpoint or in a library is a regular, bounded file, or it is not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sda_daemon.library.catalog import LOCK_FILE_NAME
from sda_daemon.library.index import INDEX_FILE_NAME
from sda_daemon.library.kept import KEPT_FILE_NAME
from sda_daemon.library.restored import RESTORED_FILE_NAME
from sda_daemon.library.scan import SCAN_FILE_NAME
from sda_daemon.library.weights import WEIGHTS_FILE_NAME
from sda_daemon.state.ledger import LEDGER_FILE_NAME
from sda_daemon.state.locks import INSTANCE_LOCK_NAME
from tests.cli.console import Printed, run
from tests.daemon_process import DaemonProcess
from tests.neighbours import LARGE, NO_FILES, NOT_REGULAR, SIDECARS

MEMORIES = (KEPT_FILE_NAME, RESTORED_FILE_NAME, SCAN_FILE_NAME, WEIGHTS_FILE_NAME, f"{INDEX_FILE_NAME}.bak")
TIME_LIMIT_S = 20.0
"""Of a conversion: a worker that waited for a pipe would be cut off."""


def put_beside(drop: Callable[..., Path], folder: Path) -> dict[str, str]:
    """Write checkpoints, each with something hostile beside it; return what is said of each path."""
    told = {}
    for seed, (name, (make, reason)) in enumerate(SIDECARS.items()):
        checkpoint = drop(folder / name / f"c{seed}.pt", seed)
        sidecar = checkpoint.with_name(f"{checkpoint.name}.meta.json")
        make(sidecar)
        told[str(sidecar)] = reason
        if name in NO_FILES | LARGE:
            notes = checkpoint.with_name("sda.yaml")
            make(notes)
            told[str(notes)] = f"it cannot be used: {reason}"
    return told


def assert_told(told: dict[str, str], expected: dict[str, str]) -> None:
    assert told.keys() == expected.keys()
    assert {path: reason for path, reason in told.items() if expected[path] not in reason} == {}


def test_b46_sidecars_and_notes_never_cost_a_model(daemon: DaemonProcess, drop: Callable[..., Path]) -> None:
    """Each checkpoint converts, without the facts of what cannot be used, which is told once."""
    daemon.write_config(conversion={"time_limit_s": TIME_LIMIT_S})
    expected = put_beside(drop, daemon.drop)
    daemon.start("--once")
    daemon.wait()
    ignored = daemon.events("notes.ignored")
    assert_told({event["path"]: event["reason"] for event in ignored}, expected)
    assert len(ignored) == len(expected)
    assert len(daemon.models()) == len(SIDECARS)
    assert daemon.events("conversion.failed") == []


def test_b46_convert_names_what_it_ignores(tmp_path: Path, drop: Callable[..., Path]) -> None:
    """All are converted, for people and as JSON."""
    expected = put_beside(drop, tmp_path / "runs")
    printed = run("convert", "runs", "--models-dir", "models", "--all", cwd=tmp_path)
    assert printed.code == 0, printed.stderr
    for path, reason in expected.items():
        assert f"{Path(path).relative_to(tmp_path)} is ignored: " in printed.stderr
        assert reason in printed.stderr
    results = run("convert", "runs", "--models-dir", "others", "--json", cwd=tmp_path).json()["results"]
    said = [warning for result in results for warning in result["warnings"] if " is ignored: " in warning]
    assert_told(dict(line.split(" is ignored: ") for line in said), expected)
    inspected = run("inspect", next(iter(expected)).removesuffix(".meta.json"), cwd=tmp_path)
    assert inspected.code == 0, inspected.stderr


@pytest.fixture
def lived(daemon: DaemonProcess, drop: Callable[..., Path]) -> DaemonProcess:
    """A daemon that has made one model and ended."""
    drop(daemon.drop / "first.pt")
    daemon.start("--once")
    daemon.wait()
    assert len(daemon.models()) == 1
    return daemon


def replace_by(make: Callable[[Path], None], path: Path) -> None:
    path.unlink(missing_ok=True)
    make(path)


def clear(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()


def test_b46_memories_in_the_library_are_not_there_then(lived: DaemonProcess) -> None:
    """Whatever has the name of a memory or of a backup: lists show what there is."""
    for make, _ in (NO_FILES | LARGE).values():
        for name in MEMORIES:
            replace_by(make, lived.models_dir / name)
        for arguments in (("list",), ("show", "first epoch 7")):
            printed = run("models", *arguments, "--models-dir", "models", cwd=lived.base)
            assert (printed.code, "first" in printed.stdout) == (0, True), printed.stderr
        for path in [lived.models_dir / name for name in MEMORIES]:
            if os.path.lexists(path):
                clear(path)
            path.with_name(f"{path.name}.pipe").unlink(missing_ok=True)


def commands(daemon: DaemonProcess) -> dict[str, Printed]:
    """Run what opens a library or a ledger."""
    config = ("--config", str(daemon.config))
    return {
        "list": run("models", "list", "--models-dir", "models", cwd=daemon.base),
        "status": run("status", *config, cwd=daemon.base),
        "run": run("run", "--once", *config, cwd=daemon.base),
        "convert": run("convert", str(daemon.drop), "--models-dir", "models", cwd=daemon.base),
    }


def assert_says(printed: Printed, *words: str) -> None:
    said = printed.stdout + printed.stderr
    assert printed.code not in (0, 70), said
    assert "Traceback" not in said
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize("name", ["pipe", "endless device", "folder", "2 GB"])
def test_b46_an_index_that_is_no_file_is_named(lived: DaemonProcess, name: str) -> None:
    """Commands and the daemon say what is wrong, and wait for nothing."""
    make, reason = (NO_FILES | LARGE)[name]
    index = lived.models_dir / INDEX_FILE_NAME
    replace_by(make, index)
    done = commands(lived)
    for command in ("list", "run", "convert"):
        assert_says(done[command], INDEX_FILE_NAME, reason)
    clear(index)
    assert run("models", "repair", "--models-dir", "models", "--yes", cwd=lived.base).code == 0
    assert len(lived.models()) == 1


@pytest.mark.parametrize("ending", ["", "-journal", "-wal", "-shm"])
def test_b46_a_ledger_that_is_no_file_is_named(lived: DaemonProcess, ending: str) -> None:
    """Also one of the files that SQLite has beside it: it would wait for a pipe without an end."""
    for name in ("pipe", "endless device"):
        ledger = lived.state_dir / f"{LEDGER_FILE_NAME}{ending}"
        replace_by(NO_FILES[name][0], ledger)
        done = commands(lived)
        for command in ("status", "run"):
            assert_says(done[command], str(ledger), NOT_REGULAR)
        assert done["list"].code == done["convert"].code == 0
        ledger.unlink()


def test_b46_a_lock_that_is_no_file_is_named(lived: DaemonProcess) -> None:
    """The daemon's, and that of the library, which can still be read."""
    for name in ("pipe", "endless device"):
        lock = lived.models_dir / INSTANCE_LOCK_NAME
        replace_by(NO_FILES[name][0], lock)
        done = commands(lived)
        for command in ("status", "run"):
            assert_says(done[command], str(lock), NOT_REGULAR)
        assert done["list"].code == done["convert"].code == 0
        lock.unlink()
        lock = lived.models_dir / LOCK_FILE_NAME
        replace_by(NO_FILES[name][0], lock)
        assert run("models", "list", "--models-dir", "models", cwd=lived.base).code == 0
        edited = run("models", "edit", "first epoch 7", "--name", "other", "--models-dir", "models", cwd=lived.base)
        assert_says(edited, LOCK_FILE_NAME, NOT_REGULAR)
        lock.unlink()


def test_b46_a_running_daemon_lives_on_beside_such_an_index(daemon: DaemonProcess, drop: Callable[..., Path]) -> None:
    """What it converts meanwhile is in the library once the index is a file again."""
    daemon.start()
    drop(daemon.drop / "first.pt", 1)
    daemon.wait_for("conversion.succeeded")
    index, saved = daemon.models_dir / INDEX_FILE_NAME, daemon.base / "saved"
    shutil.copy2(index, saved)
    os.mkfifo(daemon.base / "pipe")
    (daemon.base / "pipe").replace(index)
    drop(daemon.drop / "second.pt", 2)
    daemon.wait_for("conversion.failed")
    saved.replace(index)
    daemon.wait_for("conversion.succeeded", count=2)
    assert daemon.stop() == 0
    assert len(daemon.models()) == 2


@pytest.mark.parametrize("name", NO_FILES | LARGE)
def test_b46_a_config_that_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    """`config check` says so at once."""
    make, reason = (NO_FILES | LARGE)[name]
    make(tmp_path / "config.yaml")
    for command in (("config", "check"), ("status",), ("run", "--once")):
        assert_says(run(*command, "--config", "config.yaml", cwd=tmp_path), "config.yaml", reason)
