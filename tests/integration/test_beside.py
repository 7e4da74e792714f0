"""b31, b32: at home in a folder where the training application, of whatever generation, keeps its models."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.library import ModelLibrary
from sda_daemon.models.formats import DISTILL, FORMATS, SDA, ModelFormat
from tests.daemon_process import DaemonProcess, eventually
from tests.library.application import Application
from tests.library.model_files import write_model
from tests.library.test_foreign import ENTRIES, TOP, put_in
from tests.models.generations import write_generation

Drop = Callable[..., Path]


def settled(daemon: DaemonProcess, *present: str) -> bool:
    """Whether everything foreign and these models are in the index."""
    text = (daemon.models_dir / "model_library.json").read_bytes().decode()
    try:
        models = json.loads(text)["models"]
    except ValueError:
        return False
    members = [member for what, member in ENTRIES.items() if what != "another ending"]
    return TOP in text and all(member in text for member in members) and {"vq1", *present} <= models.keys()


@pytest.mark.slow
@pytest.mark.parametrize("generation", FORMATS, ids=lambda item: item.name)
def test_b31_beside_an_application(daemon: DaemonProcess, drop: Drop, generation: ModelFormat) -> None:
    """Through a daemon's life, commands, and the application's own writes: nothing of anyone is lost."""
    folder = daemon.models_dir
    library = ModelLibrary(folder)
    names = [f"m{number}{generation.ending}" for number in range(6)]
    (folder / "rain.vqvae").write_bytes(b"theirs")
    library.add_entries([write_model(folder / name) for name in names])
    ids = [f"id-of-m{number}" for number in range(6)]
    put_in(folder, *ENTRIES.values(), top=TOP, version=generation.index_version)
    window = Application(folder, generation)
    daemon.start()
    assert settled(daemon, *ids)
    drop(daemon.drop / "a" / "x.pt", 1)
    (converted,) = daemon.wait_for("conversion.succeeded")
    ids.append(converted["model_id"])
    eventually(lambda: settled(daemon, *ids), "the new model stands beside all others")
    window.write()  # from what it read before all that: all that it does not know is gone
    assert not settled(daemon)
    eventually(lambda: settled(daemon, *ids), "all is back")
    daemon.wait_for("library.put_back")
    assert not daemon.events("library.entry_removed")
    assert not daemon.events("library.prune_refused")
    assert daemon.status(lambda facts: facts["library"])["library"]["foreign_entries"] == len(ENTRIES) + 1
    assert daemon.stop() == 0

    window.write()
    drop(daemon.drop / "b" / "x.pt", 2)
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    assert settled(daemon, *ids)

    window.write()
    made = daemon.cli("convert", str(drop(daemon.base / "c.pt", 3)), "--json", check=True)
    ids.append(json.loads(made.stdout)["results"][0]["model_id"])
    assert settled(daemon, "id-of-m0", ids[-1])

    window.read()
    window.write()
    daemon.cli("models", "edit", names[0], "--name", "Edited", check=True)
    assert settled(daemon, "id-of-m0", ids[-1])
    assert ModelLibrary(folder).get("id-of-m0").name == "Edited"  # type: ignore[union-attr]

    window.write()
    ModelLibrary(folder).repair_index()
    assert settled(daemon, *ids)

    window.write()
    printed = daemon.cli("models", "repair", "--dry-run", "--json")
    assert printed.returncode == 0, printed.stderr
    plan = json.loads(printed.stdout)
    outside = [found for found in plan["findings"] if found["kind"] == "outside"]
    assert {found["action"] for found in plan["findings"] if found["kind"] == "foreign"} == {"none"}
    assert sorted(found["old_model_id"] for found in outside) == ["abs", "evil", "sub"]
    daemon.cli("models", "repair", "--yes", check=True)
    text = (folder / "model_library.json").read_bytes().decode()
    assert "passwd" not in text
    assert ENTRIES["no object"] in text
    assert ENTRIES["a folder"] in text
    assert TOP in text
    assert {entry.model_id for entry in ModelLibrary(folder).list_all()} >= set(ids)
    assert (folder / "rain.vqvae").read_bytes() == b"theirs"


def test_b32_a_real_library_is_left_as_it_is(daemon: DaemonProcess, application_library: Path, drop: Drop) -> None:
    """Of a later generation: its model is one of the library's, and its index is still its own."""
    daemon.write_config(models_dir=str(application_library))
    before = json.loads((application_library / "model_library.json").read_bytes())
    daemon.start()
    drop(daemon.drop / "a" / "x.pt", 1)
    (made,) = daemon.wait_for("conversion.succeeded")
    daemon.models_dir = application_library
    daemon.wait_for_models(2)
    assert daemon.stop() == 0
    after = json.loads((application_library / "model_library.json").read_bytes())
    assert after["version"] == before["version"]
    ours: dict[str, Any] = after["models"].pop(made["model_id"])
    assert after["models"] == before["models"]
    (theirs,) = before["models"].values()
    assert tuple(ours) == tuple(theirs)
    assert ours.get("vocoder") is None
    verified = json.loads(daemon.cli("models", "verify", "--json").stdout)
    assert sorted(item["result"] for item in verified) == ["ok", "unrecorded"]
    assert not daemon.events("library.entry_removed")


@pytest.mark.parametrize("generation", FORMATS, ids=lambda item: item.name)
def test_b25_one_brake_whatever_the_reason(daemon: DaemonProcess, generation: ModelFormat) -> None:
    """Entries whose files hold other models all at once are kept like those whose files are gone, also at the start."""
    folder = daemon.models_dir
    library = ModelLibrary(folder)
    names = [f"m{number}{generation.ending}" for number in range(4)]
    saved = "2026-01-02T03:04:05"
    library.add_entries([write_model(folder / name, save_date=saved) for name in names])
    index = (folder / "model_library.json").read_bytes()
    for name in names[:2]:
        (folder / name).unlink()
    write_model(folder / names[2], "other-2", "a longer name", save_date="2026-01-02T03:04:06")
    write_model(folder / names[3], "other-3", "a longer name", save_date="2026-01-02T03:04:07")
    daemon.start()
    (refused,) = daemon.wait_for("library.prune_refused")
    assert (refused["missing"], refused["known"]) == (4, 4)
    assert (folder / "model_library.json").read_bytes() == index
    for name in names:
        write_model(folder / name, save_date=saved)
    drop_in = folder / f"late{generation.ending}"
    write_model(drop_in)
    eventually(lambda: ModelLibrary(folder).count() == 5, "the one that is new is adopted, and all others are there")
    assert {f"id-of-m{number}" for number in range(4)} <= {entry.model_id for entry in ModelLibrary(folder).list_all()}
    assert daemon.stop() == 0


def test_b39_the_index_is_readable_again_soon(daemon: DaemonProcess) -> None:
    """The application leaves it for its owner's eyes only; a daemon mends that within seconds, and after a restart."""
    folder = daemon.models_dir
    ModelLibrary(folder).add_entries([write_model(folder / f"{name}.sda") for name in "ab"])
    index = folder / "model_library.json"
    index.chmod(0o664)

    def mode() -> int:
        return stat.S_IMODE(index.stat().st_mode)

    daemon.start()
    for _ in range(2):
        Application(folder, FORMATS[0]).write()
        eventually(lambda: mode() == 0o664, "the index can be read by others again")
        assert daemon.stop() == 0
        Application(folder, FORMATS[0]).write()
        assert mode() == 0o600
        daemon.start()
        eventually(lambda: mode() == 0o664, "also what was written while no daemon was there")


def test_b33_what_cannot_be_played_is_said_once(daemon: DaemonProcess) -> None:
    """A daemon that writes for whoever trained: one event for each model and reason, none for what fits."""
    daemon.write_config(models_format="auto", rules=[{"match": "old/*", "models_format": "sda"}])
    daemon.models_dir.mkdir()
    write_model(daemon.models_dir / "theirs.distillgan")
    daemon.start()
    write_generation(daemon.drop / "first" / "x.pt", SDA, 1)
    write_generation(daemon.drop / "later" / "x.pt", DISTILL, 2)
    write_generation(daemon.drop / "old" / "x.pt", DISTILL, 3)
    write_generation(daemon.drop / "long" / "x.pt", DISTILL, 4, columns=7)
    write_generation(daemon.drop / "early" / "x.pt", DISTILL, 5, activation="sigmoid")
    daemon.wait_for("conversion.succeeded", count=5)
    assert daemon.stop() == 0
    files = {entry.file_path for entry in daemon.models()}
    assert files == {
        "theirs.distillgan", "first_epoch_0.sda", "later_epoch_0.distillgan", "old_epoch_0.sda",
        "long_epoch_0.distillgan", "early_epoch_0.sda",
    }  # fmt: skip
    told = {event["file"]: (event["format"], event["reason"]) for event in daemon.events("conversion.not_playable")}
    assert len(daemon.events("conversion.not_playable")) == len(told) == 3
    assert told["old_epoch_0.sda"][0] == "sda"
    assert "sounds wrong there" in told["old_epoch_0.sda"][1]
    assert "another length than one second" in told["long_epoch_0.distillgan"][1]
    assert "it is written as .sda instead" in told["early_epoch_0.sda"][1]
    assert all(event["hint"] for event in daemon.events("conversion.not_playable"))


def test_b33_the_command_line_chooses_the_format(daemon: DaemonProcess) -> None:
    """For a conversion, whatever config and rules say, and for taking a model elsewhere."""
    daemon.write_config(models_format="sda", rules=[{"match": "*", "models_format": "distillgan"}])
    source = write_generation(daemon.base / "runs" / "x.pt", DISTILL)
    done = daemon.cli("convert", str(source), "--format", "distill", "--json", check=True)
    (result,) = json.loads(done.stdout)["results"]
    assert (result["file_path"], result["warnings"]) == ("runs_epoch_0.distill", [])
    out = daemon.base / "out"
    out.mkdir()
    shown = daemon.cli("models", "export", "runs epoch 0", "--format", "sda", "--to", str(out), "--json", check=True)
    (copied,) = json.loads(shown.stdout)
    assert copied["path"] == str(out / "runs_epoch_0.sda")
    assert "sounds wrong there" in copied["warnings"][0]
    first = write_generation(daemon.base / "first" / "x.pt", SDA, 1)
    told = daemon.cli("convert", str(first), "--format", "distill", check=True)
    assert "it is written as .sda instead" in told.stderr
    refused = daemon.cli("models", "export", "first epoch 0", "--format", "distillgan", "--to", str(out))
    assert refused.returncode == 65
    assert "ends in a sigmoid" in refused.stderr
    assert sorted(path.name for path in out.iterdir()) == ["runs_epoch_0.sda"]
