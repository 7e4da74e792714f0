"""b35: what is deleted or moved is a content, not a name, at every step, also across file systems."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.conversion.sources import PART_ENDING
from sda_daemon.demo.checkpoints import checkpoint_dict, small_model, write_checkpoint, write_small_checkpoint
from sda_daemon.intake.aside import ASIDE_ENDING
from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]
BIG_BYTES = 240_000_000


def digest(path: Path) -> str:
    """Return a digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def leftovers(*folders: Path) -> list[str]:
    """Return all private names and unfinished copies."""
    return [
        path.name
        for folder in folders
        for path in folder.rglob(".*")
        if path.name.endswith((ASIDE_ENDING, PART_ENDING))
    ]


def epoch_beside(path: Path) -> int | None:
    """Return the epoch in a checkpoint's sidecar, None if it has none."""
    sidecar = path.with_name(f"{path.name}.meta.json")
    return int(json.loads(sidecar.read_text())["epoch"]) if sidecar.exists() else None


@pytest.fixture(scope="module")
def big_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of 240 MB: a small model with a large optimizer state, and its sidecar."""
    folder = tmp_path_factory.mktemp("big")
    state = {"state": {0: {"exp_avg": torch.zeros(BIG_BYTES // 4)}}}
    content = checkpoint_dict(small_model(1).state_dict(), epoch=7, optimizer_state=state)
    yield write_checkpoint(folder / "checkpoint_epoch0007.pt", content)
    shutil.rmtree(folder)


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A folder on another file system."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == Path("/tmp").stat().st_dev or shutil.disk_usage(shm).free < 10**9:
        pytest.skip("there is no second file system with room here")
    folder = shm / f"sda-daemon-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


MOMENTS = {
    "before anything": ("sda_daemon.intake.aside:_take_sidecar", "before", 1),
    "its sidecar is aside": ("sda_daemon.intake.aside:_take_sidecar", "after", 1),
    "it is aside": ("sda_daemon.intake.aside:take", "after", 1),
    "it was checked": ("sda_daemon.intake.aside:_check", "after", 1),
    "its sidecar is placed": ("sda_daemon.conversion.sources:_Move._place", "after", 1),
    "half of it is copied": ("sda_daemon.conversion.sources:_stop_if", "after", 30),
    "it is copied": ("sda_daemon.conversion.sources:_copy", "after", 2),
    "it is placed": ("sda_daemon.conversion.sources:_Move._place", "after", 2),
    "before the original goes": ("sda_daemon.conversion.sources:_Move._remove", "before", 1),
    "it is removed": ("sda_daemon.conversion.sources:_Move._remove", "after", 1),
}
"""Function, whether before or after it, and in which of its calls."""


def at_moment(folder: Path, moment: str, body: str) -> dict[str, str]:
    """Return an environment in which a daemon, once, runs `body` at a moment of clearing a checkpoint away."""
    place, when, call = MOMENTS[moment]
    module, _, name = place.partition(":")
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"""
import importlib, os, sys
marker = {str(folder / "done")!r}
def act():
    open(marker, "w").close()
{textwrap.indent(textwrap.dedent(body), "    ")}
if "run" in sys.orig_argv and not os.path.exists(marker):
    module = importlib.import_module({module!r})
    *holders, function = {name!r}.split(".")
    holder = getattr(module, holders[0]) if holders else module
    inner = getattr(holder, function)
    calls = []
    def patched(*args, **kwargs):
        calls.append(1)
        if len(calls) == {call} and {when!r} == "before":
            act()
        result = inner(*args, **kwargs)
        if len(calls) == {call} and {when!r} == "after":
            act()
        return result
    setattr(holder, function, patched)
""")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("end", ["it lives", "it dies"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_b35_another_takes_the_name(
    daemon: DaemonProcess, big_checkpoint: Path, other_disk: Path, tmp_path: Path, moment: str, end: str
) -> None:
    """240 MB are on the way to another disk, and the trainer saves the next under the same name: both come there.

    Whatever step that falls into, and whether the daemon goes on or is killed there.
    """
    done = other_disk / "done"
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "after": "move", "move_to": str(done)}])
    newcomer = write_small_checkpoint(tmp_path / "new" / "x.pt", 2, epoch=8)
    path = daemon.drop / "run" / "x.pt"
    body = f"""
        os.replace({str(newcomer)!r}, {str(path)!r})
        os.replace({str(newcomer)!r} + ".meta.json", {str(path)!r} + ".meta.json")
    """ + ("    os._exit(9)" if end == "it dies" else "")
    expected: dict[str, int | None] = {digest(big_checkpoint): 7, digest(newcomer): 8}
    if moment in ("before anything", "its sidecar is aside"):
        del expected[digest(big_checkpoint)]  # the trainer itself has written over it
    environment = at_moment(tmp_path / "site", moment, body)
    (daemon.drop / "run").mkdir()
    shutil.copyfile(f"{big_checkpoint}.meta.json", f"{path}.meta.json")
    shutil.copyfile(big_checkpoint, path)
    daemon.start(env=environment, wait=False)
    if end == "it dies":
        assert daemon.wait() == 9
        daemon.start(env=environment, wait=False)
    eventually(lambda: len(list(done.rglob("*.pt"))) == len(expected), "all are moved")
    eventually(lambda: not list(daemon.drop.rglob("*.pt*")), "nothing is left in the watched folder")
    assert daemon.stop() == 0
    assert {digest(item): epoch_beside(item) for item in done.rglob("*.pt")} == expected, "whole, with its own sidecar"
    assert sorted(entry.training_epochs for entry in daemon.models()) == [7, 8]
    assert leftovers(daemon.drop, done) == []
    assert not daemon.events("source.kept")
    shutil.rmtree(done)


@pytest.mark.parametrize("moment", ["before anything", "it is aside", "it was checked", "its sidecar is aside"])
@pytest.mark.parametrize("end", ["it lives", "it dies", "it dies without memory"])
def test_b35_deleting(daemon: DaemonProcess, tmp_path: Path, moment: str, end: str) -> None:
    """A newcomer under the name of one that is being deleted is converted before it goes; also with a lost ledger."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "after": "delete"}])
    path = daemon.drop / "run" / "x.pt"
    newcomer = write_small_checkpoint(tmp_path / "new" / "x.pt", 2, epoch=8)
    body = f"os.replace({str(newcomer)!r}, {str(path)!r})\n" + ("os._exit(9)" if end != "it lives" else "")
    environment = at_moment(tmp_path / "site", moment, body)
    write_small_checkpoint(path, 1, epoch=7)
    daemon.start(env=environment, wait=False)
    if end != "it lives":
        assert daemon.wait() == 9
        if end == "it dies without memory":
            shutil.rmtree(daemon.state_dir)
        daemon.start(env=environment, wait=False)
    eventually(lambda: sorted(entry.training_epochs for entry in daemon.models()) == [7, 8], "both are converted")
    eventually(lambda: not list(daemon.drop.rglob("*.pt")), "both are deleted")
    eventually(lambda: not leftovers(daemon.drop), "so is what went aside with them")
    assert len(daemon.events("conversion.succeeded")) == 2
    assert daemon.stop() == 0


def test_a_crash_is_undone_when_the_folder_comes_back(daemon: DaemonProcess, drop: Drop) -> None:
    """A private name in a folder that appears later is found too; one that someone holds is left alone."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2}])
    daemon.start()
    away = daemon.base / "away"
    drop(away / ".x.pt.0123abcd.sda-aside", 1)
    (away / ".x.pt.meta.json.0123abcd.sda-aside").write_text("{}")
    away.rename(daemon.drop / "run")
    (event,) = daemon.wait_for("source.put_back", path=str(daemon.drop / "run" / "x.pt"))
    assert event["was"].endswith(".0123abcd.sda-aside")
    daemon.wait_for_models(1)
    eventually((daemon.drop / "run" / "x.pt.meta.json").exists, "its sidecar is back too")
    assert daemon.stop() == 0


def test_what_cannot_be_moved_is_told_once_and_listed(daemon: DaemonProcess, drop: Drop) -> None:
    """A file in the way of the destination: one event, over rescans and restarts; `status` lists it till it is gone."""
    done = daemon.base / "done"
    done.write_text("no folder")
    daemon.write_config(
        watch=[{"path": "drop", "settle_s": 0.2, "after": "move", "move_to": "done"}], rescan_interval_s=0.3
    )
    daemon.start()
    path = drop(daemon.drop / "run" / "x.pt", 1)
    (event,) = daemon.wait_for("source.kept")
    assert event["path"] == str(path)
    mark = daemon.mark()
    daemon.wait_for("rescan.finished", count=3, after=mark)
    daemon.stop()
    mark = daemon.mark()
    daemon.start()
    daemon.wait_for("rescan.finished", count=3, after=mark)
    assert len(daemon.events("source.kept")) == 1
    facts = daemon.status(lambda facts: facts["kept"])
    assert [(item["path"], item["reason"]) for item in facts["kept"]] == [(str(path), event["reason"])]
    words = daemon.cli("status").stdout
    assert f"kept {path}" in words
    assert event["reason"] in words
    assert path.exists()
    done.unlink()
    daemon.wait_for("source.moved")
    assert (done / "run" / "x.pt").exists()
    assert daemon.status(lambda facts: not facts["kept"])["kept"] == []
    assert daemon.stop() == 0


def test_a_full_destination_is_waited_for(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """One checkpoint is tried now and then; when there is room again, all go, without a rescan."""
    room = tmp_path / "room"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"""
import os, sys
if "run" in sys.orig_argv:
    import sda_daemon.conversion.sources as sources, sda_daemon.conversion.clearing as clearing
    clearing.BLOCKED_S = 0.5
    inner = sources.rename_new
    def full(source, target):
        if "/done/" in str(target) and not os.path.exists({str(room)!r}):
            raise OSError({errno.ENOSPC}, os.strerror({errno.ENOSPC}), str(source), None, str(target))
        return inner(source, target)
    sources.rename_new = full
""")
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "after": "move", "move_to": "done"}])
    daemon.start(env={"PYTHONPATH": str(site)})
    for seed in range(3):
        drop(daemon.drop / f"run{seed}" / "x.pt", seed)
    daemon.wait_for_models(3)
    daemon.wait_for("source.kept")
    room.touch()
    daemon.wait_for("source.moved", count=3)
    assert leftovers(daemon.drop) == []
    assert daemon.status(lambda facts: not facts["kept"])
    assert daemon.stop() == 0


def test_once_waits_for_the_moves(daemon: DaemonProcess, drop: Drop, other_disk: Path) -> None:
    """`run --once` ends when the last checkpoint has been moved."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "after": "move", "move_to": str(other_disk / "done")}])
    for seed in range(4):
        drop(daemon.drop / f"run{seed}" / "x.pt", seed)
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    assert len(daemon.events("source.moved")) == 4
    assert not list(daemon.drop.rglob("*.pt"))
    assert len(list((other_disk / "done").rglob("*.pt"))) == 4


def test_a_stop_does_not_wait_for_a_copy(
    daemon: DaemonProcess, big_checkpoint: Path, other_disk: Path, tmp_path: Path
) -> None:
    """A copy under way is undone; the next start moves the checkpoint."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"""
import os, sys, time
marker = {str(tmp_path / "copying")!r}
if "run" in sys.orig_argv and not os.path.exists(marker):
    import sda_daemon.conversion.sources as sources
    inner = sources._stop_if
    def slow(is_stopping):
        open(marker, "w").close()
        time.sleep(0.5)
        inner(is_stopping)
    sources._stop_if = slow
""")
    done = other_disk / "done"
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "after": "move", "move_to": str(done)}])
    path = daemon.drop / "run" / "x.pt"
    path.parent.mkdir()
    shutil.copyfile(big_checkpoint, path)
    daemon.start(env={"PYTHONPATH": str(tmp_path / "site")})
    eventually((tmp_path / "copying").exists, "it is being copied")
    assert daemon.stop() == 0
    assert path.exists()
    assert leftovers(daemon.drop, done) == []
    daemon.start()
    daemon.wait_for("source.moved")
    assert digest(done / "run" / "x.pt") == digest(big_checkpoint)
    assert daemon.stop() == 0


def test_the_loop_turns_while_a_copy_goes_on(
    daemon: DaemonProcess, big_checkpoint: Path, other_disk: Path, drop: Drop, tmp_path: Path
) -> None:
    """Another checkpoint is converted while a large one is on its way to another disk."""
    go = tmp_path / "go"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"""
import os, sys, time
if "run" in sys.orig_argv:
    import sda_daemon.conversion.sources as sources
    inner = sources._stop_if
    def waiting(is_stopping):
        while not os.path.exists({str(go)!r}):
            time.sleep(0.05)
        inner(is_stopping)
    sources._stop_if = waiting
""")
    done = other_disk / "done"
    watch: dict[str, Any] = {"path": "drop", "settle_s": 0.2, "after": "move", "move_to": str(done)}
    daemon.write_config(watch=[watch])
    (daemon.drop / "big").mkdir()
    shutil.copyfile(big_checkpoint, daemon.drop / "big" / "x.pt")
    daemon.start(env={"PYTHONPATH": str(site)})
    daemon.wait_for("conversion.succeeded")
    eventually(lambda: leftovers(done), "the copy has begun")
    drop(daemon.drop / "small" / "x.pt", 5)
    daemon.wait_for("conversion.succeeded", count=2)
    assert not daemon.events("source.moved")
    go.touch()
    daemon.wait_for("source.moved", count=2)
    assert daemon.stop() == 0


@pytest.mark.parametrize("goal", ["z.pt", "{drop}/run/z.pt"], ids=["relative", "absolute"])
@pytest.mark.parametrize("place", ["same disk", "other disk"])
def test_b35_a_link_and_its_target_move_together(
    goal: str, place: str, daemon: DaemonProcess, drop: Drop, request: pytest.FixtureRequest
) -> None:
    """`best.pt` is a link to a checkpoint of the same folder: where both are now, it leads to that.

    A link that has not settled when its goal moves stays, and leads to the new place.
    """
    done = daemon.base / "done" if place == "same disk" else request.getfixturevalue("other_disk")
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.1, "after": "move", "move_to": str(done)}])
    target = drop(daemon.drop / "run" / "z.pt", 3)
    links = {"best.pt": goal.format(drop=daemon.drop), "last.pt": "best.pt"}
    for name, says in links.items():
        (target.parent / name).symlink_to(says)
    daemon.start("--once")
    assert daemon.wait() == 0
    moved = {Path(event["path"]).name for event in daemon.events("source.moved")}
    assert "z.pt" in moved
    assert {path.name for path in target.parent.iterdir()} == links.keys() - moved
    for name, says in links.items():
        link = (done / "run" if name in moved else target.parent) / name
        assert link.readlink().is_absolute() == says.startswith("/")
        assert link.resolve() == (done / "run" / "z.pt").resolve()
        assert digest(link) == digest(done / "run" / "z.pt")
    assert leftovers(daemon.drop, done) == []
    assert len(daemon.models()) == 1
