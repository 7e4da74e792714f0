"""b36: what the daemon puts out is never taken in again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from sda_daemon.demo.checkpoints import SMALL_MELS, checkpoint_dict, small_model
from sda_daemon.models import ModelMetadata, save_model_from_checkpoint
from tests.cli.console import run
from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]


def snapshot(folder: Path, *but: str) -> dict[str, str]:
    """Return every file below a folder with a digest, without those that change by themselves."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and ".sda-work-" not in str(path) and path.name not in but
    }


def test_b36_a_library_below_a_watched_folder(daemon: DaemonProcess, drop: Drop) -> None:
    """Everything is taken and deleted once it is done, but for the library and the memory, which lie among it."""
    models, state = daemon.drop / "library", daemon.drop / "memory"
    daemon.models_dir, daemon.state_dir = models, state
    for seed in range(3):
        save_model_from_checkpoint(drop(daemon.base / "x.pt", seed), ModelMetadata(name=f"model {seed}"), models)
    trained = drop(models / "train_20260101_120000" / "checkpoints" / "checkpoint_epoch0007.pt", 8)
    (models / "note.txt").write_text("mine")
    daemon.write_config(
        models_dir="drop/library",
        state_dir="drop/memory",
        watch=[{"path": "drop", "patterns": ["*"], "settle_s": 0.1, "after": "delete"}],
        rescan_interval_s=0.2,
    )
    run("models", "delete", "model 2", "--yes", "--models-dir", str(models), cwd=daemon.base)
    assert list((models / ".trash").glob("*.sda"))
    caches = (".model_library.scan.json", ".model_library.weights.json")
    volatile = (*caches, ".sda-daemon.lock", ".model_library.lock")
    daemon.start()
    mine = snapshot(models, *volatile)
    trash_link = daemon.drop / "library-again"
    trash_link.symlink_to("library/.trash")
    path = drop(daemon.drop / "run" / "x.pt", 5)
    (daemon.drop / "run" / "link.pt").symlink_to(trained)
    eventually(lambda: not path.exists(), "a checkpoint beside it is converted and deleted")
    mark = daemon.mark()
    daemon.wait_for("rescan.finished", count=15, after=mark)
    index = {"model_library.json", "model_library.json.bak"}
    new = {entry.file_path for entry in daemon.models() if entry.training_epochs == 7 and "run" in entry.name}
    left = {name: digest for name, digest in snapshot(models, *volatile).items() if name not in index | new}
    assert left == {name: digest for name, digest in mine.items() if name not in index}
    assert len(daemon.models()) == 3
    assert {event["path"] for event in daemon.events("checkpoint.seen")} == {str(path)}
    assert daemon.stop() == 0


def test_b36_trainings_inside_the_library(daemon: DaemonProcess, drop: Drop) -> None:
    """Watching the models folder itself for `train_*/checkpoints` works; its models stay what they are."""
    daemon.write_config(
        models_dir="models", watch=[{"path": "models", "settle_s": 0.2, "after": "move", "move_to": "models/done"}]
    )
    save_model_from_checkpoint(drop(daemon.base / "x.pt", 1), ModelMetadata(name="mine"), daemon.models_dir)
    daemon.start()
    path = drop(daemon.models_dir / "train_20260101_120000" / "checkpoints" / "checkpoint_epoch0007.pt", 2)
    daemon.wait_for_models(2)
    daemon.wait_for("source.moved")
    moved = daemon.models_dir / "done" / "train_20260101_120000" / "checkpoints" / path.name
    assert moved.exists()
    mark = daemon.mark()
    os.utime(moved)
    drop(daemon.models_dir / "train_20260101_120000" / "checkpoints" / "next.pt", 3)
    daemon.wait_for_models(3)
    assert not [event for event in daemon.events("checkpoint.seen", after=mark) if "/done/" in event["path"]]
    assert daemon.stop() == 0


def test_b36_a_model_under_a_checkpoints_name(daemon: DaemonProcess, drop: Drop, sample_models: list[Path]) -> None:
    """Of every generation, known by its content: told once, neither converted nor deleted."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "after": "delete"}])
    models = daemon.base / "other"
    save_model_from_checkpoint(drop(daemon.base / "x.pt", 1), ModelMetadata(name="mine"), models)
    sources = [models / "mine.sda", *sample_models]
    for number, source in enumerate(sources):
        shutil.copyfile(source, daemon.drop / f"{number}.pt")
    os.link(models / "mine.sda", daemon.drop / "linked.pt")
    daemon.start()
    skipped = daemon.wait_for("checkpoint.skipped", count=len(sources) + 1)
    assert all("is a finished model" in event["reason"] for event in skipped)
    daemon.stop()
    daemon.start()
    assert len(daemon.events("checkpoint.skipped")) == len(sources) + 1
    assert daemon.models() == []
    assert len(list(daemon.drop.glob("*.pt"))) == len(sources) + 1
    assert not daemon.events("conversion.failed")
    assert daemon.stop() == 0


def test_b36_a_model_of_an_unknown_generation(daemon: DaemonProcess) -> None:
    """What another program or a later version has saved is no source, whatever the patterns take."""
    daemon.write_config(watch=[{"path": "drop", "patterns": ["*"], "settle_s": 0.1, "after": "delete"}])
    weights = small_model(3).state_dict()
    model = {"model_state_dict": weights, "latent_dim": 8, "spectrogram_config": SMALL_MELS.to_dict()}
    metadata = ModelMetadata(model_id="abc", name="theirs").to_dict()
    torch.save({**model, "format": "distill4_model", "version": 4}, daemon.drop / "theirs.distill4")
    torch.save({**model, "metadata": metadata}, daemon.drop / "unmarked.pt")
    torch.save({**checkpoint_dict(weights), "metadata": metadata}, daemon.drop / "both.pt")
    before = snapshot(daemon.drop)
    daemon.start("--once")
    assert daemon.wait() == 0
    skipped = daemon.events("checkpoint.skipped")
    assert len(skipped) == 3
    assert all("is a finished model of another program or a later version" in event["reason"] for event in skipped)
    assert snapshot(daemon.drop) == before
    assert daemon.models() == []
    printed = run("convert", "drop", "--config", "config.yaml", "--jobs", "1", "--json", cwd=daemon.base)
    assert [item["cause"] for item in printed.json()["results"]] == ["finished_model"] * 3
    assert snapshot(daemon.drop) == before
    found = run("inspect", "drop/theirs.distill4", cwd=daemon.base)
    assert "format 'distill4_model'" in found.stdout


def test_b36_convert_passes_over_what_is_finished(daemon: DaemonProcess, drop: Drop) -> None:
    """A folder that holds the library, what was moved away and the memory: only its checkpoints are taken."""
    base = daemon.base
    daemon.write_config(watch=[{"path": "drop", "patterns": ["*"], "after": "move", "move_to": "drop/done"}])
    for name, seed in {"drop/a/x.pt": 1, "drop/done/y.pt": 2, "models/train/z.pt": 3}.items():
        drop(base / name, seed)
    save_model_from_checkpoint(drop(base / "w.pt", 4), ModelMetadata(name="mine"), daemon.models_dir)
    shutil.copyfile(daemon.models_dir / "mine.sda", base / "drop" / "copy.sda")
    shutil.copyfile(daemon.models_dir / "mine.sda", base / "drop" / "copy.pt")
    printed = run("convert", "drop", "--config", "config.yaml", "--jobs", "1", "--json", cwd=base)
    results = {
        os.path.relpath(item["path"], base): item["cause"] or item["action"] for item in printed.json()["results"]
    }
    assert results == {"drop/a/x.pt": "added", "drop/copy.pt": "finished_model"}
    named = run("convert", "drop/done", "models", "--config", "config.yaml", "--jobs", "1", "--json", cwd=base)
    assert named.json()["summary"]["added"] == 2, "who names such a folder means it"
