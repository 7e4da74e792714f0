"""The whole path with a real daemon process: a checkpoint in, a model out."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]


def test_a_dropped_checkpoint_becomes_a_model(daemon: DaemonProcess, drop: Drop) -> None:
    """Event, settling, worker, file, index: the events come in order and the entry says what the file says."""
    daemon.write_config(workers=2)
    daemon.start()
    drop(daemon.drop / "rain" / "checkpoints" / "checkpoint_epoch0007.pt", seed=1, with_analysis=True)
    (entry,) = daemon.wait_for_models(1)
    assert (entry.name, entry.dataset_name, entry.training_epochs) == ("rain epoch 7", "rain", 7)
    assert (entry.has_analysis, entry.n_active_components) == (True, 3)
    assert entry.file_size_bytes == (daemon.models_dir / entry.file_path).stat().st_size
    daemon.wait_for("conversion.succeeded", model_id=entry.model_id)
    names = [event["event"] for event in daemon.events()]
    expected = ["checkpoint.seen", "checkpoint.settled", "conversion.started", "library.entry_added"]
    assert [name for name in names if name in expected] == expected
    assert daemon.stop() == 0
    assert daemon.events("daemon.stopped")[0]["reason"] == "SIGTERM"


@pytest.mark.parametrize(("run", "epoch", "latent_dim", "sliders"), [("notes64", 5, 64, 19), ("notes32", 2, 32, 0)])
def test_the_real_samples_convert(
    daemon: DaemonProcess, sample_runs: Path, run: str, epoch: int, latent_dim: int, sliders: int
) -> None:
    """Right facts, bit-identical weights, and a file that opens with nothing but torch and numpy."""
    daemon.start()
    source = sample_runs / run / "checkpoints" / f"checkpoint_epoch{epoch:04}.pt"
    shutil.copytree(source.parents[1], daemon.drop / run)
    (entry,) = daemon.wait_for_models(1)
    assert entry.name == f"{run} epoch {epoch}"
    assert (entry.training_epochs, entry.has_analysis, entry.n_active_components) == (epoch, sliders > 0, sliders)
    path = daemon.models_dir / entry.file_path
    assert entry.file_size_bytes == path.stat().st_size < 0.7 * source.stat().st_size

    from sda_daemon.models import load_model
    from sda_daemon.models.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(source)
    assert (entry.final_train_loss, entry.final_val_loss) == (checkpoint.train_loss, checkpoint.val_loss)
    program = """
import sys, torch
content = torch.load(sys.argv[1], weights_only=False)
assert not any(name.startswith(("sda_daemon", "small_dataset_audio")) for name in sys.modules)
expected = ["decoder_activation", "format", "latent_analysis", "latent_dim", "metadata", "model_state_dict",
            "provenance", "spectrogram_config", "training_config", "version"]
assert sorted(content) == expected, sorted(content)
print(content["latent_dim"], content["training_config"]["preset"])
"""
    # -P keeps the working folder off the path: only what is installed can be imported.
    shown = subprocess.run([sys.executable, "-P", "-c", program, path], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == [str(latent_dim), "conservative"]
    stored = torch.load(path, weights_only=False)["model_state_dict"]
    assert stored.keys() == checkpoint.state_dict.keys()
    for name, tensor in checkpoint.state_dict.items():
        assert stored[name].dtype == tensor.dtype
        assert torch.equal(stored[name], tensor)
    loaded = load_model(path)
    assert loaded.model.latent_dim == latent_dim
    assert loaded.model.sample(2).shape == (2, 1, 128, 94)


def test_what_was_dropped_while_it_was_down_converts(daemon: DaemonProcess, drop: Drop) -> None:
    """The rescan at start finds what no event told of."""
    drop(daemon.drop / "a" / "x.pt", seed=1)
    daemon.start()
    daemon.wait_for_models(1)


def test_once_converts_what_is_there_and_exits(daemon: DaemonProcess, drop: Drop) -> None:
    """0 when all went well, nothing done the second time, 1 when a conversion failed."""
    daemon.write_config(workers=2)
    drop(daemon.drop / "a" / "x.pt", seed=1)
    drop(daemon.drop / "b" / "x.pt", seed=2)
    assert daemon.start("--once", wait=False).wait() == 0
    assert len(daemon.models()) == 2
    mark = daemon.mark()
    assert daemon.start("--once", wait=False).wait() == 0
    assert not daemon.events("conversion.started", after=mark)
    (daemon.drop / "junk.pt").write_bytes(b"no checkpoint at all")
    assert daemon.start("--once", wait=False).wait() == 1
    assert daemon.events("conversion.failed", after=mark)[0]["kind"] == "broken"


def test_ctrl_c_stops_cleanly(daemon: DaemonProcess) -> None:
    """SIGINT is a stop like SIGTERM."""
    daemon.start()
    assert daemon.stop(signal.SIGINT) == 0
    assert daemon.events()[-1]["event"] == "daemon.stopped"


def test_a_pickle_bomb_does_not_go_off(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """The refused function is named, nothing runs, the next checkpoint converts."""
    daemon.start()
    target = tmp_path / "went-off"
    import os

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {target}",)

    torch.save({"model_state_dict": Bomb()}, daemon.drop / "bomb.pt")
    (failed,) = daemon.wait_for("conversion.failed")
    assert failed["kind"] == "unsafe"
    assert "posix.system" in failed["reason"]
    assert failed["permanent"] is True
    drop(daemon.drop / "a" / "x.pt", seed=1)
    daemon.wait_for_models(1)
    assert not target.exists()


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_one_model_each(daemon: DaemonProcess, drop: Drop) -> None:
    """SIGKILL at three different moments; after the last start there is exactly one model per checkpoint."""
    daemon.write_config(workers=2)
    for seed in range(6):
        drop(daemon.drop / f"run{seed}" / "x.pt", seed=seed)
    for moment in ("checkpoint.settled", "conversion.started", "conversion.succeeded"):
        mark = daemon.mark()
        daemon.start()
        daemon.wait_for(moment, after=mark)
        daemon.kill()
    daemon.start()
    daemon.wait_for_models(6)
    eventually(lambda: len(daemon.files()) == 6, "6 files")
    assert daemon.stop() == 0
    hidden = [path.name for path in daemon.models_dir.iterdir() if path.name.startswith(".sda-work")]
    assert hidden == []
