"""b25 at the start: a models folder that is not mounted is not taken for a new one."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sda_daemon.cli.schemas import SCHEMAS
from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]
INDEX = "model_library.json"


def index_of(models_dir: Path) -> dict[str, str]:
    """File by id, as the index says."""
    models = json.loads((models_dir / INDEX).read_bytes())["models"]
    return {model_id: values["file_path"] for model_id, values in models.items()}


def fill(daemon: DaemonProcess, drop: Drop, count: int = 3) -> dict[str, str]:
    """Have a daemon convert some checkpoints, and stop it."""
    daemon.start()
    for seed in range(1, count + 1):
        drop(daemon.drop / f"run{seed}" / "x.pt", seed)
    daemon.wait_for_models(count)
    assert daemon.stop() == 0
    return index_of(daemon.models_dir)


@contextlib.contextmanager
def absent(models_dir: Path, way: str) -> Iterator[Callable[[], object]]:
    """Take a models folder away; gives a function that brings it back."""
    away = models_dir.with_name("away")
    if way == "not mounted":
        subprocess.run(["umount", str(models_dir)], check=True)
        disk = models_dir.with_name("disk")
        yield lambda: subprocess.run(["mount", "--bind", str(disk), str(models_dir)], check=True)
        return
    models_dir.rename(away)
    if way != "missing":
        models_dir.mkdir()

    def bring_back() -> None:
        shutil.rmtree(models_dir, ignore_errors=True)
        away.rename(models_dir)

    yield bring_back


@pytest.fixture
def mounted(daemon: DaemonProcess) -> Iterator[Callable[[], None]]:
    """A function that mounts a folder as the models folder."""
    disk = daemon.base / "disk"

    def mount() -> None:
        disk.mkdir()
        daemon.models_dir.mkdir()
        command = ["mount", "--bind", str(disk), str(daemon.models_dir)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")

    yield mount
    if disk.exists():
        daemon.kill()
        subprocess.run(["umount", "-l", str(daemon.models_dir)], capture_output=True, check=False)


@pytest.mark.parametrize(
    "way", [pytest.param("not mounted", marks=pytest.mark.needs_root("mounts a folder")), "missing", "looked at"]
)
def test_b25_a_daemon_starts_without_its_models_folder(
    daemon: DaemonProcess, drop: Drop, mounted: Callable[[], None], way: str
) -> None:
    """It says so, puts nothing there, shows it, and goes on by itself when the folder is back."""
    if way == "not mounted":
        mounted()
    before = fill(daemon, drop)
    with absent(daemon.models_dir, way) as bring_back:
        if way == "looked at":  # a command makes an empty index
            daemon.cli("models", "list")
        held = sorted(daemon.models_dir.iterdir()) if daemon.models_dir.exists() else None
        mark = daemon.mark()
        daemon.start()
        (lost,) = daemon.wait_for("library.folder_lost", after=mark)
        what = "it is not there" if way == "missing" else "it is empty"
        assert lost["reason"] == f"{what}, but had 3 models when the daemon last ran"
        assert "models repair" in lost["hint"]
        path = drop(daemon.drop / "meanwhile" / "x.pt", 40)
        daemon.wait_for("checkpoint.settled", after=mark, path=str(path))
        facts = daemon.status(lambda facts: facts["waiting"]["count"] == 1)
        assert facts["running"] is True
        assert facts["library"] == {"models": 0, "foreign_entries": 0, "problem": lost["reason"]}
        shown = daemon.cli("status")
        assert shown.returncode == 0
        assert "the models folder is lost; conversions wait" in shown.stdout
        assert lost["reason"] in shown.stdout
        assert not daemon.events("conversion.started", after=mark)
        assert held == (sorted(daemon.models_dir.iterdir()) if daemon.models_dir.exists() else None)
        bring_back()
        daemon.wait_for("library.folder_back", after=mark)
        daemon.wait_for("conversion.succeeded", after=mark, path=str(path))
    daemon.wait_for_models(4)
    assert index_of(daemon.models_dir).items() > before.items()
    assert len(daemon.events("conversion.started", after=mark)) == 1
    assert daemon.status(lambda facts: facts["library"]["models"] == 4)["library"]["problem"] == ""
    assert daemon.stop() == 0
    assert not (daemon.state_dir / "no_library").exists()


def test_b25_models_that_were_deleted_on_purpose(daemon: DaemonProcess, drop: Drop) -> None:
    """A person says so, once; a new library is begun, and what was converted before is not converted again."""
    fill(daemon, drop)
    shutil.rmtree(daemon.models_dir)
    mark = daemon.mark()
    daemon.start()
    daemon.wait_for("library.folder_lost", after=mark)
    path = drop(daemon.drop / "later" / "x.pt", 40)
    daemon.wait_for("checkpoint.settled", after=mark, path=str(path))
    for refused in (daemon.cli("models", "repair", "--dry-run"), daemon.cli("models", "repair")):
        assert f"{daemon.models_dir}: it is not there, but had 3 models when the daemon last ran" in refused.stdout
    assert "Add --yes" in refused.stderr
    assert daemon.status(lambda facts: facts["library"])["library"]["problem"]
    done = daemon.cli("models", "repair", "--yes")
    assert done.returncode == 0, done.stderr
    assert "forgotten: the daemon begins a new library there" in done.stdout
    daemon.wait_for("conversion.succeeded", after=mark, path=str(path))
    assert len(daemon.events("conversion.started", after=mark)) == 1
    assert daemon.stop() == 0
    mark = daemon.mark()
    daemon.start()
    daemon.wait_for_models(1)
    assert not daemon.events("library.folder_lost", after=mark)


def test_b25_a_folder_lost_while_running_can_be_given_up(daemon: DaemonProcess, drop: Drop) -> None:
    """The same word of a person is the way out for a running daemon whose folder was removed on purpose."""
    daemon.start()
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for_models(1)
    daemon.status(lambda facts: facts["library"]["models"] == 1)
    shutil.rmtree(daemon.models_dir)
    daemon.wait_for("library.folder_lost")
    lost = daemon.status(lambda facts: facts["library"]["problem"])
    assert lost["running"] is True
    mark = daemon.mark()
    printed = json.loads(daemon.cli("models", "repair", "--yes", "--json").stdout)
    SCHEMAS["models repair"].model_validate(printed)
    assert (printed["applied"], printed["entries"]) == (True, 1)
    assert [(found["kind"], found["action"]) for found in printed["findings"]] == [("lost", "forget")]
    daemon.wait_for("daemon.started", after=mark)
    drop(daemon.drop / "b" / "x.pt", 2)
    daemon.wait_for_models(1)
    assert daemon.stop() == 0


def test_b25_another_models_folder_is_not_missing(daemon: DaemonProcess, drop: Drop) -> None:
    """A config that names a new, empty folder means what it says, before the start and while the old one is lost."""
    fill(daemon, drop)
    daemon.write_config(models_dir="other")
    daemon.models_dir = daemon.base / "other"
    mark = daemon.mark()
    daemon.start()
    drop(daemon.drop / "later" / "x.pt", 40)
    daemon.wait_for_models(1)
    for seed in (41, 42):
        drop(daemon.drop / f"later{seed}" / "x.pt", seed)
    daemon.wait_for_models(3)
    assert not daemon.events("library.folder_lost", after=mark)
    assert daemon.stop() == 0
    daemon.models_dir.rename(daemon.base / "away")
    mark = daemon.mark()
    daemon.start()
    daemon.wait_for("library.folder_lost", after=mark)
    drop(daemon.drop / "last" / "x.pt", 43)
    daemon.wait_for("checkpoint.settled", after=mark)
    daemon.models_dir = daemon.base / "third"
    daemon.write_config(models_dir="third")
    daemon.wait_for("config.reloaded", after=mark)
    daemon.wait_for_models(1)
    assert daemon.status(lambda facts: facts["library"]["models"] == 1)["library"]["problem"] == ""
    assert not (daemon.base / "other").exists()
    assert daemon.stop() == 0


def test_b25_once_does_not_wait(daemon: DaemonProcess, drop: Drop) -> None:
    """`run --once` ends with a message that says what to do, makes nothing, and works once it was done."""
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    for seed in (1, 2, 3):
        drop(daemon.drop / f"run{seed}" / "x.pt", seed)
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    assert len(daemon.files()) == 3
    shutil.rmtree(daemon.models_dir)
    daemon.start("--once", wait=False)
    assert daemon.wait() == 75
    (said,) = daemon.events("text")
    assert said["text"] == (
        f"sda-daemon: {daemon.models_dir} is taken to be lost: it is not there, but had 3 models when the daemon "
        "last ran. Mount it or put it back; if its models were deleted on purpose, run: sda-daemon models repair"
    )
    assert not daemon.models_dir.exists()
    assert daemon.cli("models", "repair", "--yes").returncode == 0
    drop(daemon.drop / "run4" / "x.pt", 4)
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    assert len(daemon.files()) == 1


def test_b25_a_ledger_in_the_models_folder(daemon: DaemonProcess, drop: Drop) -> None:
    """With the ledger in it, a folder without models is the very folder, emptied; without the ledger, a new one."""
    daemon.write_config(state_dir="models/.state")
    fill(daemon, drop)
    for path in daemon.models_dir.iterdir():
        if path.is_file():
            path.unlink()
    mark = daemon.mark()
    daemon.start()
    drop(daemon.drop / "later" / "x.pt", 40)
    daemon.wait_for_models(1)
    assert not daemon.events("library.folder_lost", after=mark)
    assert daemon.stop() == 0
    daemon.models_dir.rename(daemon.base / "away")
    daemon.models_dir.mkdir()
    daemon.start()
    daemon.wait_for_models(4)
    assert not daemon.events("library.folder_lost", after=mark)


def test_b25_files_gone_before_the_start(daemon: DaemonProcess, drop: Drop) -> None:
    """An index without any of its files is left as it is, as in a running daemon; a person may have it repaired."""
    before = fill(daemon, drop)
    away = daemon.base / "away"
    away.mkdir()
    for name in daemon.files():
        (daemon.models_dir / name).rename(away / name)
    mark = daemon.mark()
    daemon.start()
    (refused,) = daemon.wait_for("library.prune_refused", after=mark)
    assert (refused["missing"], refused["known"]) == (3, 3)
    assert index_of(daemon.models_dir) == before
    for path in away.iterdir():
        path.rename(daemon.models_dir / path.name)
    drop(daemon.drop / "later" / "x.pt", 40)
    daemon.wait_for_models(4)
    assert index_of(daemon.models_dir).items() > before.items()
    assert not daemon.events("library.entry_removed")
    assert daemon.stop() == 0
    for name in daemon.files():
        (daemon.models_dir / name).unlink()
    daemon.start()
    daemon.wait_for("library.prune_refused", after=mark, count=2)
    assert daemon.cli("models", "repair", "--yes").returncode == 0
    eventually(lambda: not index_of(daemon.models_dir), "the index is empty")
    assert daemon.stop(signal.SIGINT) == 0
    mark = daemon.mark()
    daemon.start()
    assert not daemon.events("library.folder_lost", after=mark)
    assert daemon.stop() == 0
