"""b34: in use is kept, whatever `select` and `on_overwrite` want; what goes can be brought back."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from sda_daemon.demo.checkpoints import write_small_checkpoint
from sda_daemon.library import ModelLibrary, trash
from sda_daemon.library.editing import MetadataChange, edit_model
from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]


def epochs(daemon: DaemonProcess) -> list[int]:
    """Return the epochs of the library's models."""
    return sorted(entry.training_epochs for entry in daemon.models())


def test_b34_select_in_a_run_of_ten(daemon: DaemonProcess) -> None:
    """Of ten models one has been edited, one has a preset, one a tag of its own: they stay, and so does the best."""
    application = {"presets": "presets", "history": "history"}
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2}], application=application, workers=2)
    losses = {epoch: 1.0 - 0.1 * epoch for epoch in range(10)}
    for epoch, loss in losses.items():
        write_small_checkpoint(daemon.drop / "run" / f"e{epoch}.pt", epoch, epoch=epoch, val_loss=loss)
    daemon.start()
    daemon.wait_for_models(10)
    daemon.stop()
    library = ModelLibrary(daemon.models_dir)
    ids = {entry.training_epochs: entry.model_id for entry in library.entries()}
    edit_model(library, ids[0], MetadataChange(name="my favourite", description="soft"))
    edit_model(library, ids[1], MetadataChange(tags=("keeper",)))
    preset = daemon.base / "presets" / ids[2] / "presets.json"
    preset.parent.mkdir(parents=True)
    preset.write_text(json.dumps([{"name": "dawn", "slider_positions": [1, 2]}]))
    (daemon.base / "history").mkdir()
    (daemon.base / "history" / "history.json").write_text(json.dumps([{"model_id": ids[3], "seed": 7}]))

    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "select": "best"}])
    told = daemon.cli("config", "check").stderr
    assert f"select: best would move 5 of the 10 models made in {daemon.drop}/run into the trash" in told
    assert len(ModelLibrary(daemon.models_dir).entries()) == 10, "a check only tells"
    daemon.start()
    eventually(lambda: epochs(daemon) == [0, 1, 2, 3, 9], "what is in use stays, and the best")
    (begins,) = daemon.wait_for("select.begins")
    assert (begins["folder"], begins["select"], begins["models"]) == (f"{daemon.drop}/run", "best", 5)
    assert (begins["level"], begins["in_use"], len(begins["names"])) == ("warning", 4, 5)
    assert "models restore" in begins["hint"]
    in_trash = trash.list_trash(daemon.models_dir)
    assert sorted(item.entry.training_epochs for item in in_trash) == [4, 5, 6, 7, 8]
    assert daemon.cli("config", "check").stderr == "", "it has begun"

    restored = daemon.cli("models", "restore", ids[4], ids[5])
    assert restored.returncode == 0, restored.stderr
    eventually(lambda: epochs(daemon) == [0, 1, 2, 3, 4, 5, 9], "they are back")
    edit_model(ModelLibrary(daemon.models_dir), ids[9], MetadataChange(description="while the daemon runs"))
    write_small_checkpoint(daemon.drop / "run" / "e10.pt", 10, epoch=10, val_loss=0.05)
    eventually(lambda: epochs(daemon) == [0, 1, 2, 3, 4, 5, 9, 10], "neither the restored nor the edited give way")
    assert daemon.stop() == 0
    shutil.rmtree(daemon.state_dir)
    mark = daemon.mark()
    daemon.start()
    daemon.wait_for("ledger.rebuilt", after=mark)
    eventually(lambda: set(epochs(daemon)) >= {0, 1, 2, 3, 4, 5, 9, 10}, "also without the memory")
    write_small_checkpoint(daemon.drop / "run" / "e11.pt", 11, epoch=11, val_loss=0.04)
    eventually(lambda: 11 in epochs(daemon) and 10 not in epochs(daemon), "the next best comes")
    assert set(epochs(daemon)) >= {0, 1, 2, 3, 4, 5, 9, 11}
    assert daemon.stop() == 0


def test_b34_a_model_in_use_is_not_replaced(daemon: DaemonProcess, tmp_path: Path) -> None:
    """With `on_overwrite: replace`, the next weights of its path become a model of their own."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "on_overwrite": "replace"}])
    daemon.start()
    path = daemon.drop / "run" / "x.pt"
    path.parent.mkdir()
    write_small_checkpoint(tmp_path / "1.pt", 1, epoch=1).rename(path)
    daemon.wait_for_models(1)
    write_small_checkpoint(tmp_path / "2.pt", 2, epoch=2).rename(path)
    eventually(lambda: epochs(daemon) == [2], "an untouched one is replaced")
    (entry,) = daemon.models()
    edit_model(ModelLibrary(daemon.models_dir), entry.model_id, MetadataChange(tags=("mine",)))
    later = time.time() + 10
    new = write_small_checkpoint(tmp_path / "3.pt", 3, epoch=3)
    os.utime(new, (later, later))
    new.rename(path)
    eventually(lambda: epochs(daemon) == [2, 3], "a touched one stays")
    assert daemon.stop() == 0
