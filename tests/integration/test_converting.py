"""b12 to b21: what can happen while a checkpoint is converted."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import torch

from tests.bombs import add_zeros
from tests.daemon_process import DaemonProcess, eventually, patch_workers

Drop = Callable[..., Path]


def workers_of(daemon: DaemonProcess) -> list[psutil.Process]:
    """The daemon's worker processes, without multiprocessing's own tracker."""
    found = []
    for child in psutil.Process(daemon.pid).children():
        with_spawn = "spawn_main" in " ".join(child.cmdline())
        found += [child] if with_spawn else []
    return found


def freeze_workers(daemon: DaemonProcess) -> list[psutil.Process]:
    """Stop the workers, so that what is submitted next stays under way until they are thawed."""
    workers: list[psutil.Process] = eventually(lambda: workers_of(daemon), "workers run")
    for worker in workers:
        worker.suspend()
    return workers


def warm(daemon: DaemonProcess, drop: Drop) -> list[psutil.Process]:
    """Convert one checkpoint, so that the workers are up, and freeze them."""
    drop(daemon.drop / "warm-up" / "x.pt", 99)
    daemon.wait_for_models(1)
    return freeze_workers(daemon)


def test_b12_replaced_while_converting(daemon: DaemonProcess, drop: Drop) -> None:
    """The content that was there when it ended counts: the old one never becomes a model of its own."""
    daemon.start()
    workers = warm(daemon, drop)
    path = drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for("conversion.started", path=str(path))
    drop(daemon.base / "new.pt", 2).replace(path)
    for worker in workers:
        worker.resume()
    daemon.wait_for_models(2)
    daemon.wait_for("conversion.started", count=2, path=str(path))
    daemon.wait_for("conversion.succeeded", path=str(path))
    from sda_daemon.models import load_model
    from sda_daemon.models.checkpoint import read_checkpoint

    (entry,) = [entry for entry in daemon.models() if entry.dataset_name == "a"]
    stored = load_model(daemon.models_dir / entry.file_path).model.state_dict()
    expected = read_checkpoint(path).state_dict
    assert all(torch.equal(stored[name], expected[name]) for name in expected)
    assert not daemon.events("conversion.failed")


TRUNCATE_THE_VICTIM = """
    found = read(path)
    if "/victim/" in str(path) and once():
        os.truncate(path, 5000)
    return found
"""


def test_b12_truncated_while_converting(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """Of what was there before no model is made, and of what is left neither, until it is whole again."""
    daemon.start(env=patch_workers(tmp_path / "site", TRUNCATE_THE_VICTIM))
    victim = drop(daemon.drop / "victim" / "x.pt", 1)
    eventually(lambda: victim.stat().st_size == 5000, "it is truncated while it is converted")
    drop(daemon.drop / "other" / "x.pt", 2)
    daemon.wait_for("conversion.succeeded")
    assert [entry.dataset_name for entry in daemon.models()] == ["other"]
    drop(victim, 1)
    daemon.wait_for_models(2)
    assert not daemon.events("conversion.failed")


@pytest.mark.parametrize("when", ["queued", "running"])
def test_b13_vanished(daemon: DaemonProcess, drop: Drop, when: str) -> None:
    """Deleted while it was queued, or while its conversion was under way: an event, no error, no retry."""
    daemon.write_config(workers=1)
    daemon.start()
    workers = warm(daemon, drop)
    first = drop(daemon.drop / "first" / "x.pt", 3)
    daemon.wait_for("conversion.started", path=str(first))
    path = drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for("checkpoint.settled", path=str(path))
    path = path if when == "queued" else first
    path.unlink()
    for worker in workers:
        worker.resume()
    daemon.wait_for("checkpoint.vanished", path=str(path))
    drop(daemon.drop / "b" / "x.pt", 2)
    daemon.wait_for_models(3)
    assert not daemon.events("conversion.failed")


@pytest.mark.slow
def test_b14_idempotent(daemon: DaemonProcess, drop: Drop) -> None:
    """Twenty touches during a conversion, three restarts, a deleted ledger: still one model."""
    daemon.write_config(workers=2)
    daemon.start()
    workers = warm(daemon, drop)
    path = drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for("conversion.started", path=str(path))
    for _ in range(20):
        path.touch()
    for worker in workers:
        worker.resume()
    daemon.wait_for_models(2)
    before = {entry.model_id: entry.file_path for entry in daemon.models()}
    daemon.write_config(workers=1)
    for restart in range(3):
        daemon.stop()
        if restart == 2:
            shutil.rmtree(daemon.state_dir)
        mark = daemon.mark()
        daemon.start()
        drop(daemon.drop / f"sign{restart}" / "x.pt", 10 + restart)
        daemon.wait_for("conversion.succeeded", after=mark)
    entries = {entry.model_id: entry.file_path for entry in daemon.models()}
    assert len(entries) == 5
    assert before.items() <= entries.items()
    (rebuilt,) = daemon.events("ledger.rebuilt")
    assert rebuilt["checkpoints"] >= 3


def test_b15_names(daemon: DaemonProcess, drop: Drop) -> None:
    """The same file name with other weights is another model; the same weights are the same one."""
    daemon.write_config(metadata={"name": "always the same"})
    daemon.start()
    first = drop(daemon.drop / "a" / "checkpoints" / "x.pt", 1)
    daemon.wait_for_models(1)
    drop(daemon.drop / "b" / "checkpoints" / "x.pt", 2)
    daemon.wait_for_models(2)
    assert daemon.files() == ["always_the_same.sda", "always_the_same_1.sda"]
    assert len({entry.name for entry in daemon.models()}) == 2, "the application finds models by name"
    (event,) = daemon.events("conversion.succeeded", path=str(first))
    drop(daemon.drop / "c" / "other-name.pt", 1)
    (skipped,) = daemon.wait_for("checkpoint.skipped")
    assert (skipped["model_id"], skipped["file"]) == (event["model_id"], "always_the_same.sda")
    assert len(daemon.files()) == 2


def test_b16_written_again_with_analysis(daemon: DaemonProcess, drop: Drop) -> None:
    """The trainer's second writing keeps id, file and name, and brings the sliders."""
    daemon.start()
    path = daemon.drop / "a" / "checkpoints" / "x.pt"
    drop(path, 1)
    (before,) = daemon.wait_for_models(1)
    assert not before.has_analysis
    drop(path, 1, with_analysis=True)
    daemon.wait_for("conversion.succeeded", action="updated")
    (after,) = daemon.models()
    assert (after.model_id, after.file_path, after.name) == (before.model_id, before.file_path, before.name)
    assert (after.has_analysis, after.n_active_components) == (True, 3)
    from sda_daemon.models import load_model

    assert load_model(daemon.models_dir / after.file_path).analysis is not None


@pytest.mark.parametrize(("on_overwrite", "expected"), [("version", 2), ("replace", 1)])
def test_b16_other_weights_under_the_same_path(
    daemon: DaemonProcess, drop: Drop, on_overwrite: str, expected: int
) -> None:
    """A further model, or the old one's place, as configured; a model of another path is not touched."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "on_overwrite": on_overwrite}])
    daemon.start()
    path = daemon.drop / "a" / "x.pt"
    drop(path, 1)
    daemon.wait_for_models(1)
    drop(path, 2)
    daemon.wait_for("conversion.succeeded", count=2)
    drop(daemon.drop / "b" / "x.pt", 3)
    daemon.wait_for_models(expected + 1)
    assert len(daemon.files()) == expected + 1
    newest = daemon.events("conversion.succeeded", path=str(path))[-1]
    assert newest["action"] == ("added" if on_overwrite == "version" else "replaced")
    assert newest["model_id"] in {entry.model_id for entry in daemon.models()}


def _loss_checkpoint(path: Path, seed: int, epoch: int, val_loss: float) -> Path:
    from sda_daemon.demo.checkpoints import write_small_checkpoint

    temporary = write_small_checkpoint(path.parents[2] / f"{seed}.tmp", seed, epoch=epoch, val_loss=val_loss)
    path.parent.mkdir(parents=True, exist_ok=True)
    return temporary.rename(path)


def test_trainings_of_one_data_set(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The application's window uses one folder for all of them, and counts from 0 again: the names tell them apart."""
    from sda_daemon.demo.checkpoints import write_small_checkpoint

    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2}])
    daemon.start()
    path = daemon.drop / "bells" / "training" / "checkpoints" / "checkpoint_epoch0003.pt"
    path.parent.mkdir(parents=True)
    for training in range(3):
        new = write_small_checkpoint(tmp_path / f"{training}.pt", training, epoch=3)
        os.utime(new, (1_770_000_000 + 86_400 * training,) * 2)
        new.rename(path)
        daemon.wait_for_models(training + 1)
    names = sorted(entry.name for entry in daemon.models())
    assert names == ["bells epoch 3", "bells epoch 3 (2026-02-03)", "bells epoch 3 (2026-02-04)"]
    assert {entry.dataset_name for entry in daemon.models()} == {"bells"}
    write_small_checkpoint(daemon.drop / "rain take 3.pt", 9, epoch=4)
    daemon.wait_for_models(4)
    assert "rain take 3 epoch 4" in [entry.name for entry in daemon.models()]


@pytest.mark.parametrize(("select", "expected"), [("best", 2), ("latest", 3)])
def test_select_keeps_one_of_each_folder(
    daemon: DaemonProcess, select: str, expected: int, small_checkpoints: Callable[..., Path]
) -> None:
    """Of three checkpoints one stays; a model saved by hand and other folders are not touched."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "select": select}], workers=2)
    from sda_daemon.models import ModelMetadata, save_model_from_checkpoint

    save_model_from_checkpoint(small_checkpoints(7), ModelMetadata(name="by hand"), daemon.models_dir)
    daemon.start()
    _loss_checkpoint(daemon.drop / "other" / "e0.pt", 9, 0, 9.0)
    losses = {1: 0.5, 2: 0.2, 3: float("inf")}
    for epoch, loss in losses.items():
        _loss_checkpoint(daemon.drop / "run" / f"e{epoch}.pt", epoch, epoch, loss)
    daemon.wait_for("conversion.succeeded", count=4)
    daemon.wait_for("model.superseded", count=2)
    eventually(lambda: len(daemon.files()) == 3, "three files")
    names = {entry.name: entry.training_epochs for entry in daemon.models()}
    assert names == {"by hand": 7, "other epoch 0": 0, f"run epoch {expected}": expected}


@pytest.mark.parametrize("after", ["delete", "move"])
def test_after_success_the_source_goes(daemon: DaemonProcess, drop: Drop, after: str) -> None:
    """Deleted, or moved with its place below the watch kept; never a checkpoint that was refused."""
    watch: dict[str, Any] = {"path": "drop", "settle_s": 0.2, "after": after}
    if after == "move":
        watch["move_to"] = "drop/done"
    daemon.write_config(watch=[watch])
    daemon.start()
    refused = daemon.drop / "bad.pt"
    refused.write_bytes(b"no checkpoint")
    path = drop(daemon.drop / "a" / "checkpoints" / "x.pt", 1)
    daemon.wait_for_models(1)
    daemon.wait_for("source.deleted" if after == "delete" else "source.moved")
    assert not path.exists()
    assert refused.exists()
    moved = daemon.drop / "done" / "a" / "checkpoints" / "x.pt"
    assert moved.exists() == (after == "move")
    drop(path, 1)
    daemon.wait_for("checkpoint.skipped")
    eventually(lambda: not path.exists(), "the duplicate goes too")
    if after == "move":
        eventually((moved.parent / "x_1.pt").exists, "under another name")
    assert not [event for event in daemon.events("checkpoint.seen") if "/done/" in event["path"]]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _protocol_0_global(name: str, argument: str) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(V{argument}\ntR.".encode()


def _with_pickle(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")


def test_b17_nothing_executes(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Every known way to make a pickle run something: nothing runs, and each is refused by name."""
    daemon.start()
    went_off = tmp_path / "went-off"
    touch = f"__import__('os').system('touch {went_off}')"
    bombs: dict[str, Any] = {
        "os.system": {"model_state_dict": {"encoder.x": Call(os.system, f"touch {went_off}")}},
        "eval": {"model_state_dict": {}, "epoch": Call(eval, touch)},
        "exec": Call(exec, touch),
        "getattr": {"a": Call(getattr, "x", "upper")},
        "subprocess.Popen": {"training_config": Call(subprocess.Popen, ["touch", str(went_off)])},
        "shutil.rmtree": Call(shutil.rmtree, str(tmp_path / "nothing")),
        "builtins.bytearray": Call(bytearray, 10**12),
        "torch.hub.load": Call(torch.hub.load, "a/b", "c"),
    }
    for name, content in bombs.items():
        torch.save(content, daemon.drop / f"{name}.pt")
    torch.save(bombs["os.system"], daemon.drop / "legacy os.system.pth", _use_new_zipfile_serialization=False)
    _with_pickle(daemon.drop / "protocol0 runpy._run_code.pt", _protocol_0_global("runpy._run_code", touch))
    (daemon.drop / "bare posix.system.pt").write_bytes(_protocol_0_global("posix.system", f"touch {went_off}"))
    tar = daemon.drop / "tar.pt"
    shutil.make_archive(str(tmp_path / "old"), "tar", root_dir=daemon.drop, base_dir=".")
    shutil.move(tmp_path / "old.tar", tar)
    expected = len(bombs) + 4
    failures = daemon.wait_for("conversion.failed", count=expected)
    assert not went_off.exists()
    for failure in failures:
        stem = Path(failure["path"]).stem
        if stem != "tar":
            # A bytearray holds bytes and does nothing: this one only asks for more of them than a file may.
            harmless = stem == "builtins.bytearray"
            assert failure["kind"] == ("not_a_checkpoint" if harmless else "unsafe"), failure
            if harmless:
                continue
            word = stem.split()[-1].split(".")[-1]
            assert word in failure["reason"], failure
        assert failure["permanent"] is True
    assert daemon.files() == []


VENDOR = """
from pathlib import Path

def rebuild(trace, secret):
    Path(trace).touch()
    return Hook(trace)

class Hook:
    def __init__(self, trace):
        self.trace = trace

    def __setstate__(self, state):
        Path(state["trace"]).touch()
        self.__dict__.update(state)

class Rebuilt(Hook):
    def __reduce__(self):
        return rebuild, (self.trace, 1)
"""
"""A trainer's own module, whose objects leave a trace when they are unpickled."""


@pytest.mark.parametrize(("name", "foreign"), [("Hook", "Hook"), ("Rebuilt", "rebuild")])
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "not installed"])
def test_b17_foreign_classes_do_nothing(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch, name: str, foreign: str, installed: bool
) -> None:
    """Objects with `__setstate__` or `__reduce__` are stand-ins, whose code does not run even where it could be."""
    from sda_daemon.demo.checkpoints import checkpoint_dict, small_model

    packages, trace = daemon.base / "packages", daemon.base / "trace"
    packages.mkdir()
    (packages / "vendor_trainer.py").write_text(VENDOR)
    vendor = ModuleType("vendor_trainer")
    exec(VENDOR, vendor.__dict__)
    monkeypatch.setitem(sys.modules, "vendor_trainer", vendor)
    hook = getattr(vendor, name)(str(trace))
    path = daemon.base / "x.pt"
    torch.save(checkpoint_dict(small_model(1).state_dict(), training_config={"hook": hook}), path)
    torch.load(path, weights_only=False)
    assert trace.exists(), "plain unpickling runs it"
    trace.unlink()
    daemon.start(env={"PYTHONPATH": str(packages)} if installed else None)
    path.rename(daemon.drop / "x.pt")
    daemon.wait_for_models(1)
    (dropped,) = daemon.wait_for("conversion.dropped_value")
    assert (dropped["key"], dropped["foreign_name"]) == ("training_config.hook", f"vendor_trainer.{foreign}")
    assert not trace.exists()


@pytest.mark.slow
def test_b18_bombs(daemon: DaemonProcess) -> None:
    """Files that promise far more than they hold are refused, and no worker grows beyond reason."""
    daemon.start()
    compressed = daemon.base / "compressed.pt"
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    add_zeros(compressed, "archive/data/0", 210)
    many = daemon.base / "many.pt"
    with zipfile.ZipFile(many, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        for number in range(150_000):
            archive.writestr(f"archive/{number}", b"")
    deep = b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b"."
    _with_pickle(daemon.base / "deep.pt", deep)
    memo = b"\x80\x02}r\xff\xff\xff\x7f."
    _with_pickle(daemon.base / "memo.pt", memo)
    huge = torch.zeros(1).expand(2**29)  # 2 GB in four bytes
    torch.save({"model_state_dict": {"decoder.fc.weight": huge}}, daemon.base / "huge.pt")
    for path in daemon.base.glob("*.pt"):
        path.rename(daemon.drop / path.name)
    peak = 0
    done: list[dict[str, Any]] = []

    def all_refused() -> bool:
        nonlocal peak
        for worker in workers_of(daemon):
            try:
                peak = max(peak, worker.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        done[:] = daemon.events("conversion.failed")
        return len(done) == 5

    eventually(all_refused, "five refusals")
    kinds = {Path(event["path"]).stem: event["kind"] for event in done}
    assert kinds == {
        "compressed": "not_a_checkpoint",  # torch compresses nothing: refused before anything is inflated
        "many": "oversized",
        "deep": "oversized",
        "memo": "broken",
        "huge": "oversized",
    }
    assert all(event["permanent"] for event in done)
    assert peak < 800 * 2**20


def test_b19_sick_models(daemon: DaemonProcess) -> None:
    """Each sickness has its own clear reason, and none becomes a model."""
    from sda_daemon.demo.checkpoints import checkpoint_dict, small_model, write_checkpoint

    state = small_model(1).state_dict()
    name = "decoder.fc.weight"
    cases: dict[str, tuple[dict[str, Any], str, str]] = {
        "nan": ({**state, name: state[name] * float("nan")}, "not_finite", "NaN"),
        "inf": ({**state, name: state[name] / 0.0}, "not_finite", "infinite"),
        "shape": ({**state, "encoder.convs.0.weight": torch.zeros(32, 2, 3, 3)}, "misfit", "encoder.convs.0.weight"),
        "missing": ({k: v for k, v in state.items() if "deconvs.4" not in k}, "misfit", "decoder.deconvs.4"),
        "surplus": ({**state, "discriminator.weight": torch.zeros(3)}, "misfit", "discriminator.weight"),
    }
    daemon.start()
    for case, (weights, _, _) in cases.items():
        write_checkpoint(daemon.drop / f"{case}.pt", checkpoint_dict(weights))
    newer = checkpoint_dict(state)
    newer["version"] = 2
    write_checkpoint(daemon.drop / "newer.pt", newer)
    torch.save({"state_dict": {"layer1.weight": torch.zeros(3)}, "arch": "resnet"}, daemon.drop / "other.pt")
    expected = {case: (kind, word) for case, (_, kind, word) in cases.items()}
    expected["newer"] = ("newer_version", "checkpoint version 2 is newer than supported version 1")
    expected["other"] = ("not_a_checkpoint", "its weights begin with 'layer1.weight'")
    for event in daemon.wait_for("conversion.failed", count=len(expected)):
        kind, word = expected.pop(Path(event["path"]).stem)
        assert event["kind"] == kind
        assert word in event["reason"]
        assert event["permanent"]
    assert not expected
    assert daemon.files() == []


@pytest.mark.needs_root("mounts a small disk")
def test_b20_a_full_disk_is_transient(daemon: DaemonProcess, drop: Drop) -> None:
    """A full disk is tried again with growing pauses, and done without a restart once there is room."""
    image_dir = daemon.base / "models"
    image_dir.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(image_dir)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here, to be filled up")
    try:
        daemon.start()
        drop(daemon.drop / "x.pt", 1)
        first, second = daemon.wait_for("conversion.failed", count=2)
        assert first["kind"] == "disk_full"
        assert first["permanent"] is False
        assert second["retry_in_s"] > first["retry_in_s"]
        assert daemon.files() == []
        subprocess.run(["mount", "-o", "remount,size=100m", str(image_dir)], check=True)
        daemon.wait_for_models(1)
        assert daemon.stop() == 0
    finally:
        daemon.kill()
        subprocess.run(["umount", "-l", str(image_dir)], check=True)


@pytest.mark.needs_root("mounts a small disk")
def test_b20_a_full_state_folder_is_transient(daemon: DaemonProcess, drop: Drop) -> None:
    """With no room for the ledger nothing is converted twice or lost: it goes on once there is room."""
    daemon.write_config(workers=2)
    daemon.state_dir.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(daemon.state_dir)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here, to be filled up")
    try:
        daemon.start()
        with contextlib.suppress(OSError), (daemon.state_dir / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 4096)
        for seed in range(40):
            (daemon.drop / f"junk{seed}.pt").write_bytes(b"%d is no checkpoint" % seed * 50)
        drop(daemon.drop / "a" / "x.pt", 1)
        daemon.wait_for("ledger.failed")
        (daemon.state_dir / "ballast").unlink()
        daemon.wait_for_models(1)
        assert daemon.process is not None
        assert daemon.process.poll() is None
        assert daemon.stop() == 0
    finally:
        daemon.kill()
        subprocess.run(["umount", "-l", str(daemon.state_dir)], check=True)


def test_b20_no_permission_is_transient(daemon: DaemonProcess, drop: Drop) -> None:
    """A checkpoint that may not be read is tried again, and converts once it may."""
    daemon.start(bound=True)
    path = drop(daemon.base / "x.pt", 1)
    path.chmod(0)
    path.rename(daemon.drop / "x.pt")
    (failed, *_) = daemon.wait_for("conversion.failed")
    assert (failed["kind"], failed["permanent"]) == ("permission", False)
    (daemon.drop / "x.pt").chmod(0o644)
    daemon.wait_for_models(1)


@pytest.mark.slow
def test_b20_corrupt_is_permanent(daemon: DaemonProcess, drop: Drop) -> None:
    """A corrupt file is one failure, once, across three restarts, until it changes."""
    path = drop(daemon.base / "x.pt", 1)
    data = bytearray(path.read_bytes())
    start = data.index(b"data.pkl") + 100
    data[start : start + 200] = os.urandom(200)
    path.unlink()
    target = daemon.drop / "x.pt"
    target.write_bytes(data)
    daemon.start()
    (failed,) = daemon.wait_for("conversion.failed")
    assert failed["permanent"] is True
    for _ in range(3):
        assert daemon.stop() == 0
        mark = daemon.mark()
        daemon.start()  # waits until all was looked at
        assert not daemon.events("checkpoint.seen", mark)
    sign = drop(daemon.drop / "sign" / "x.pt", 2)
    daemon.wait_for("conversion.succeeded", path=str(sign))
    assert len(daemon.events("conversion.failed")) == 1
    drop(target, 1)
    daemon.wait_for("conversion.succeeded", path=str(target))


def test_b21_poison(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """What kills its worker every time is given up, listed, and comes back on `retry`; the others proceed."""
    # A checkpoint that exhausts memory or crashes torch cannot be made at will: the worker kills itself on sight.
    body = """
        if "/venom/" in str(path) and not os.path.exists(os.environ["SDA_TEST_CURE"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path)
    """
    cured = tmp_path / "cured"
    daemon.write_config(conversion={"max_attempts": 2}, workers=2)
    daemon.start(env={**patch_workers(tmp_path / "site", body), "SDA_TEST_CURE": str(cured)})
    poison = drop(daemon.drop / "venom" / "x.pt", 1)
    drop(daemon.drop / "good" / "x.pt", 2)
    daemon.wait_for_models(1)
    (given_up,) = daemon.wait_for("conversion.given_up")
    assert given_up["attempts"] == 2
    assert "killed by signal 9" in given_up["reason"]
    assert "perhaps out of memory" in given_up["reason"]
    shown = daemon.status(lambda facts: facts["failed"])
    assert [(item["path"], item["status"], item["attempts"]) for item in shown["failed"]] == [
        (str(poison), "given_up", 2)
    ]
    mark = daemon.mark()
    drop(daemon.drop / "more" / "x.pt", 3)
    daemon.wait_for_models(2)
    assert not daemon.events("conversion.started", after=mark, path=str(poison))
    cured.touch()
    assert daemon.cli("retry", str(poison)).returncode == 0
    daemon.wait_for_models(3)


def test_a_hung_worker_is_cut_off(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """The time limit ends a conversion that hangs; the others go on."""
    body = """
        while "/hang/" in str(path):
            time.sleep(1)
        return read(path)
    """
    # A busy machine may take seconds to start a worker, which count too.
    daemon.write_config(conversion={"time_limit_s": 15, "max_attempts": 1}, workers=2)
    daemon.start(env=patch_workers(tmp_path / "site", body))
    drop(daemon.drop / "hang" / "x.pt", 1)
    drop(daemon.drop / "good" / "x.pt", 2)
    daemon.wait_for_models(1)
    (failed,) = daemon.wait_for("conversion.failed")
    assert failed["kind"] == "timeout"
    daemon.wait_for("conversion.given_up")


def test_worker_output_becomes_events(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """What a library in a worker prints is an event, so that every line of the log stays JSON."""
    body = """
        os.write(2, b"a library complains\\n")
        return read(path)
    """
    daemon.start(env=patch_workers(tmp_path / "site", body))
    drop(daemon.drop / "a" / "x.pt", 1)
    (said,) = daemon.wait_for("worker.output")
    assert said["text"] == "a library complains"
    daemon.wait_for_models(1)
    assert daemon.stop(signal.SIGTERM) == 0
    assert all(json.loads(line) for line in daemon.log.read_text().splitlines())
