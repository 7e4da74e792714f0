"""b38: one model per weights, also with those that the training application has saved under ids of its own."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.demo.checkpoints import made_up_analysis
from sda_daemon.library import ModelLibrary
from sda_daemon.library.trash import list_trash
from sda_daemon.library.weights import WEIGHTS_FILE_NAME
from sda_daemon.models.digest import weights_digest
from sda_daemon.models.formats import DISTILL, FORMATS, SDA, ModelFormat
from sda_daemon.models.torch_file import read_torch_file
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.policy import Status
from tests.daemon_process import DaemonProcess, eventually
from tests.library.application import Application

Drop = Callable[..., Path]


def ids(daemon: DaemonProcess) -> set[str]:
    """Return the ids of the library's models."""
    return {entry.model_id for entry in daemon.models()}


def application(daemon: DaemonProcess, generation: ModelFormat = DISTILL) -> Application:
    """Return an application that is at home in the daemon's library."""
    ModelLibrary(daemon.models_dir)
    return Application(daemon.models_dir, generation)


def remembered(daemon: DaemonProcess, path: Path) -> tuple[Status, str]:
    """Return what the ledger says of a checkpoint: status, and the id of its model."""
    ledger = Ledger(daemon.state_dir, owned=False)
    row = ledger.get(str(path))
    ledger.close()
    assert row is not None
    return row.status, row.model_id


def same_but_sliders(before: Path, after: Path) -> None:
    """Check that of a model's file only the pickle is another, and in that only what tells of the sliders."""
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(after) as new:
        assert old.namelist() == new.namelist()
        for name in old.namelist():
            assert name.endswith("data.pkl") or old.read(name) == new.read(name)
    loaded = [_loaded(path) for path in (before, after)]
    assert list(loaded[0]) == list(loaded[1])
    for key in loaded[0].keys() - {"latent_analysis", "metadata", "model_state_dict", "training_config"}:
        assert loaded[0][key] == loaded[1][key]
    sliders = {"has_analysis": True, "n_active_components": made_up_analysis().n_active_components}
    assert loaded[1]["metadata"] == {**loaded[0]["metadata"], **sliders}
    analysis = made_up_analysis()
    assert loaded[1]["latent_analysis"]["pca_components"].tobytes() == analysis.pca_components.tobytes()
    assert loaded[1]["latent_analysis"]["component_labels"] == analysis.component_labels


def _loaded(path: Path) -> dict[str, Any]:
    """Load a model the way the application does, which has the enum's class."""
    from sda_daemon.demo.checkpoints import _application_enum
    from sda_daemon.models.formats import format_of_name

    generation = format_of_name(path.name)
    assert generation is not None
    with _application_enum(generation.enum_module):
        content: dict[str, Any] = torch.load(path, weights_only=False)
    return content


@pytest.mark.slow
@pytest.mark.parametrize("generation", FORMATS, ids=lambda item: item.name)
def test_b38_what_the_application_has_saved_is_not_made_again(
    daemon: DaemonProcess, drop: Drop, generation: ModelFormat
) -> None:
    """It was first: the checkpoint is a duplicate of it, and stays one when the daemon is started again."""
    theirs = application(daemon, generation).save("best")
    daemon.start()
    daemon.wait_for("library.weights_known", files=1)
    path = drop(daemon.drop / "a" / "x.pt")
    (skipped,) = daemon.wait_for("checkpoint.skipped")
    assert (skipped["model_id"], skipped["name"], skipped["file"]) == (theirs, "best", f"best{generation.ending}")
    assert ids(daemon) == {theirs}
    daemon.stop()
    assert remembered(daemon, path) == (Status.DUPLICATE, theirs)
    mark = daemon.mark()
    daemon.start()
    drop(daemon.drop / "b" / "x.pt")
    daemon.wait_for("checkpoint.skipped", after=mark)
    assert not daemon.events("library.weights_known", after=mark)  # it is known what that is
    assert not daemon.events("conversion.succeeded")
    assert daemon.stop() == 0
    assert ids(daemon) == {theirs}


@pytest.mark.slow
def test_b38_the_daemons_model_gives_way(daemon: DaemonProcess, drop: Drop) -> None:
    """The application saves the same weights later: its model stays, with the sliders, and ours can be restored."""
    daemon.start()
    path = drop(daemon.drop / "a" / "x.pt", with_analysis=True)
    (made,) = daemon.wait_for("conversion.succeeded")
    window = application(daemon)
    theirs = window.save("last", model_id="11111111-aaaa-4aaa-8aaa-111111111111")
    file = daemon.models_dir / "last.distill"
    before = Path(shutil.copy(file, daemon.base / "before.distill"))
    (gone,) = daemon.wait_for("model.gave_way", model_id=made["model_id"], by_id=theirs)
    assert gone["file"] == made["file"]
    daemon.wait_for("model.given_sliders", model_id=theirs)
    (entry,) = daemon.models()
    assert (entry.model_id, entry.name, entry.file_path) == (theirs, "last", "last.distill")
    assert (entry.has_analysis, entry.n_active_components) == (True, 3)
    assert entry.file_size_bytes == file.stat().st_size
    same_but_sliders(before, file)
    (trashed,) = list_trash(daemon.models_dir)
    assert trashed.entry.model_id == made["model_id"]
    assert remembered(daemon, path) == (Status.DUPLICATE, theirs)

    mark = daemon.mark()
    daemon.cli("models", "restore", made["model_id"], check=True)
    daemon.wait_for("model.stayed", model_id=made["model_id"], after=mark)
    assert daemon.stop() == 0
    mark = daemon.mark()
    daemon.start()
    daemon.wait_for("model.stayed", after=mark)
    assert daemon.stop() == 0
    assert ids(daemon) == {theirs, made["model_id"]}
    assert len(daemon.events("conversion.started")) == 1


@pytest.mark.slow
def test_b38_what_a_person_has_named_stays(daemon: DaemonProcess, drop: Drop) -> None:
    """A model of ours with a name of its own is not taken away because the application has another one."""
    daemon.start()
    drop(daemon.drop / "a" / "x.pt")
    (made,) = daemon.wait_for("conversion.succeeded")
    daemon.cli("models", "edit", made["model_id"], "--name", "My rain", check=True)
    theirs = application(daemon).save("last")
    (stayed,) = daemon.wait_for("model.stayed", by_id=theirs)
    assert "named" in stayed["reason"]
    assert daemon.stop() == 0
    assert ids(daemon) == {theirs, made["model_id"]}
    assert not daemon.events("model.gave_way")


@pytest.mark.slow
def test_b38_sliders_come_to_the_application_s_model(daemon: DaemonProcess, drop: Drop) -> None:
    """The trainer writes the checkpoint again with its analysis: the model that the application has gets it."""
    theirs = application(daemon).save("best")
    file = daemon.models_dir / "best.distill"
    before = Path(shutil.copy(file, daemon.base / "before.distill"))
    daemon.start()
    daemon.wait_for("library.weights_known")
    path = drop(daemon.drop / "a" / "x.pt")
    daemon.wait_for("checkpoint.skipped")
    drop(path, with_analysis=True)
    (done,) = daemon.wait_for("conversion.succeeded", model_id=theirs, action="updated")
    assert done["name"] == "best"
    (entry,) = daemon.models()
    assert (entry.model_id, entry.name, entry.n_active_components) == (theirs, "best", 3)
    same_but_sliders(before, file)
    assert daemon.stop() == 0
    assert remembered(daemon, path)[1] == theirs
    verified = json.loads(daemon.cli("models", "verify", "--json").stdout)
    assert [item["result"] for item in verified] == ["unrecorded"]


def test_b38_once_knows_before_it_converts(daemon: DaemonProcess, drop: Drop) -> None:
    """A run that ends looks into the models that are there first, and remembers what it has found."""
    theirs = application(daemon).save("best")
    (daemon.models_dir / "broken.distill").write_bytes((daemon.models_dir / "best.distill").read_bytes()[:-3000])
    drop(daemon.drop / "a" / "x.pt", with_analysis=True)
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    assert daemon.events("conversion.succeeded", action="updated", model_id=theirs)
    assert len(daemon.events("library.weights_known")) == 1
    assert (daemon.models_dir / WEIGHTS_FILE_NAME).exists()
    assert ids(daemon) == {theirs}
    mark = daemon.mark()
    drop(daemon.drop / "b" / "x.pt")
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    assert not daemon.events("library.weights_known", after=mark)
    assert daemon.events("checkpoint.skipped", after=mark, model_id=theirs)
    assert ids(daemon) == {theirs}


def test_b38_convert_knows_it_too(daemon: DaemonProcess, drop: Drop) -> None:
    """A command without a daemon; a dry run says the same, and leaves nothing."""
    theirs = application(daemon, SDA).save("best")
    path = drop(daemon.base / "x.pt")
    daemon.write_config()
    for option, remembers in ((["--dry-run"], False), ([], True)):
        done = daemon.cli("convert", str(path), "--json", *option, check=True)
        (result,) = json.loads(done.stdout)["results"]
        assert (result["action"], result["model_id"]) == ("duplicate", theirs)
        assert (daemon.models_dir / WEIGHTS_FILE_NAME).exists() == remembers
    drop(path, with_analysis=True)
    done = daemon.cli("convert", str(path), "--json", check=True)
    (result,) = json.loads(done.stdout)["results"]
    assert (result["action"], result["model_id"]) == ("updated", theirs)
    assert ids(daemon) == {theirs}


@pytest.mark.slow
def test_b38_what_cannot_be_read_is_told_once(daemon: DaemonProcess, drop: Drop) -> None:
    """A model of the application whose weights are damaged: an event, once for its content; conversions go on."""
    window = application(daemon)
    window.save("best")
    file = daemon.models_dir / "best.distill"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    daemon.start()
    daemon.wait_for("library.weights_unknown", file="best.distill")
    drop(daemon.drop / "a" / "x.pt")
    daemon.wait_for("conversion.succeeded")
    assert daemon.stop() == 0
    mark = daemon.mark()
    daemon.start()
    drop(daemon.drop / "b" / "x.pt", 1)
    daemon.wait_for("conversion.succeeded", after=mark)
    assert daemon.stop() == 0
    assert not daemon.events("library.weights_unknown", after=mark)
    assert len(daemon.models()) == 3


def test_b38_a_real_model_and_its_checkpoint(daemon: DaemonProcess, application_library: Path) -> None:
    """What the application itself has written is known by its weights."""
    library = ModelLibrary(application_library)
    (theirs,) = library.list_all()
    daemon.write_config(models_dir=str(application_library))
    daemon.start()
    daemon.wait_for("library.weights_known", files=1, unreadable=0)
    assert daemon.stop() == 0
    digest = weights_digest(read_torch_file(application_library / theirs.file_path).content["model_state_dict"])
    known = eventually(lambda: library.weights.of_digest(digest))
    assert [item.file for item in known] == [theirs.file_path]


def without_a_place_for_sliders(path: Path, kind: str) -> None:
    """Write an application's model again in a way that no sliders can be added to."""
    content = {**_loaded(path), "training_config": {}}
    if kind == "no key for them":
        del content["latent_analysis"]
    torch.save(content, path, _use_new_zipfile_serialization=kind != "old torch file")


@pytest.mark.parametrize("after", ["delete", "move"])
@pytest.mark.parametrize("kind", ["old torch file", "no key for them"])
def test_b38_sliders_that_are_nowhere_else_stay(daemon: DaemonProcess, drop: Drop, kind: str, after: str) -> None:
    """The application's model of the weights cannot be given them: the checkpoint is the only one that has them."""
    app = application(daemon)
    theirs = app.save("best")
    without_a_place_for_sliders(daemon.models_dir / "best.distill", kind)
    app.add("best.distill")
    before = (daemon.models_dir / "best.distill").read_bytes()
    daemon.write_config(
        watch=[{"path": "drop", "settle_s": 0.1, "after": after, **({"move_to": "done"} if after == "move" else {})}]
    )
    path = drop(daemon.drop / "a" / "last.pt", with_analysis=True)
    content = path.read_bytes()
    other = drop(daemon.drop / "a" / "same.pt")
    for _ in range(2):
        daemon.start("--once")
        assert daemon.wait() == 0
    assert path.read_bytes() == content
    assert not other.exists(), "it brings nothing that the library lacks"
    assert (daemon.models_dir / "best.distill").read_bytes() == before
    assert ids(daemon) == {theirs}
    (told,) = daemon.events("model.without_sliders")
    assert told["model_id"] == theirs
    (kept,) = daemon.events("source.kept")
    assert kept["path"] == str(path)
    assert "sliders" in kept["reason"]
    assert [item["path"] for item in json.loads(daemon.cli("status", "--json").stdout)["kept"]] == [str(path)]


def test_b38_sliders_that_our_own_model_cannot_take(daemon: DaemonProcess, drop: Drop) -> None:
    """Another program has put something into its file that cannot be written again: likewise."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.1, "after": "delete"}])
    path = drop(daemon.drop / "a" / "x.pt")
    daemon.start("--once")
    assert daemon.wait() == 0
    assert not path.exists()
    (made,) = daemon.models()
    file = daemon.models_dir / made.file_path
    torch.save({**torch.load(file, weights_only=False), "theirs": {1, 2}}, file)
    before = file.read_bytes()
    drop(path, with_analysis=True)
    daemon.start("--once")
    assert daemon.wait() == 0
    assert path.exists()
    assert file.read_bytes() == before
    (told,) = daemon.events("model.without_sliders")
    assert "something of another program" in told["reason"]
    assert [event["path"] for event in daemon.events("source.kept")] == [str(path)]
