"""One odd file, entry, name or date costs a running daemon nothing but that one."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.models.header import read_model_header
from sda_daemon.models.metadata import ModelMetadata
from tests.daemon_process import DaemonProcess, eventually
from tests.library.model_files import write_model, write_payload

Drop = Callable[..., Path]
INDEX = "model_library.json"


def index_data(daemon: DaemonProcess) -> dict[str, Any]:
    """The index on disk, as any strict reader of JSON in UTF-8 sees it."""
    data: dict[str, Any] = json.loads((daemon.models_dir / INDEX).read_bytes().decode("utf-8"))
    return data


def add_entries(daemon: DaemonProcess, **entries: dict[str, Any]) -> None:
    """Put entries into the index, each like the first one but for these values."""
    data = index_data(daemon)
    example = next(iter(data["models"].values()))
    for model_id, values in entries.items():
        data["models"][model_id] = {**example, "model_id": model_id, "file_path": f"{model_id}.sda", **values}
    (daemon.models_dir / INDEX).write_text(json.dumps(data))


def converted(daemon: DaemonProcess, drop: Drop, seed: int) -> None:
    """Convert one more checkpoint, to see that the daemon is well."""
    drop(daemon.drop / f"well{seed}" / "x.pt", seed)
    daemon.wait_for("conversion.succeeded", path=str(daemon.drop / f"well{seed}" / "x.pt"))


ODD_NAMES = {
    "surrogate": "\ud800.sda",
    "endless": "x" * 5000 + ".sda",
    "nul": "a\0b.sda",
    "control": "\x1b[2J.sda",
    "outside": "../../x.sda",
}
KEPT = {"surrogate", "nul", "outside"}
"""Of them those that can be the name of no file in the folder: these entries are somebody else's."""


def test_entries_that_name_no_file(daemon: DaemonProcess, drop: Drop) -> None:
    """Names that no file can have: entries whose file is gone go, those of others stay, and the daemon works on."""
    daemon.start()
    converted(daemon, drop, 1)
    (real,) = index_data(daemon)["models"]
    add_entries(daemon, **{key: {"file_path": name} for key, name in ODD_NAMES.items()})
    eventually(lambda: index_data(daemon)["models"].keys() == {real, *KEPT}, "only the real model and others' are left")
    converted(daemon, drop, 2)
    assert daemon.stop() == 0
    add_entries(daemon, **{key: {"file_path": name} for key, name in ODD_NAMES.items()})
    daemon.start()
    eventually(lambda: len(index_data(daemon)["models"]) == 2 + len(KEPT), "the same at a start")
    assert daemon.stop() == 0
    assert daemon.events("daemon.crashed") == []
    assert daemon.events("text") == []


def odd_files(folder: Path) -> dict[str, str]:
    """Write model files with odd values into a folder; return what the index must say of each: a name, or nothing."""

    def payload(name: str, **values: Any) -> dict[str, Any]:
        metadata = {**ModelMetadata(model_id=f"id-{name}", name=name).to_dict(), **values.pop("metadata", {})}
        return {"format": "sda_model", "version": 1, "metadata": metadata, **values}

    write_payload(folder / "version.sda", payload("version", version=10**5000))
    write_payload(folder / "latent.sda", payload("latent", latent_dim=10**5000))
    write_payload(folder / "keys.sda", payload("keys", latent_analysis={10**5000: 1, "n_active_components": 10**5000}))
    write_payload(folder / "count.sda", payload("count", metadata={"dataset_file_count": 10**5000}))
    write_payload(folder / "nan.sda", payload("nan", metadata={"training_epochs": float("nan")}))
    write_payload(folder / "date.sda", payload("date", metadata={"save_date": "0001-01-01T00:00:00+14:00"}))
    write_payload(folder / "lone.sda", payload("lone", metadata={"name": "l\ud800ne", "tags": ["\udcff", 3]}))
    write_payload(folder / "provenance.sda", payload("provenance", provenance={"made_by_daemon": True,
                  "source_path": "\ud800/\0/x.pt", "weights_digest": "\ud800", "source_root": 5}))  # fmt: skip
    (folder / os.fsdecode(b"bytes\xff.sda")).write_bytes(b"junk")
    return {"latent.sda": "latent", "keys.sda": "keys", "count.sda": "count", "date.sda": "date",
            "lone.sda": "l\ud800ne", "provenance.sda": "provenance"}  # fmt: skip


def test_files_with_odd_values(daemon: DaemonProcess, drop: Drop) -> None:
    """What can be read is adopted, what cannot is named and left alone; at a start, while it runs, without ledger."""
    daemon.models_dir.mkdir()
    expected = odd_files(daemon.models_dir)
    daemon.start()

    def adopted() -> dict[str, str]:
        return {entry["file_path"]: entry["name"] for entry in index_data(daemon)["models"].values()}

    eventually(lambda: adopted() == expected, "every readable file has an entry")
    invalid = {event["file"] for event in daemon.events("library.file_invalid")}
    assert invalid == {"version.sda", "nan.sda", "bytes\N{REPLACEMENT CHARACTER}.sda"}
    converted(daemon, drop, 1)
    assert daemon.stop() == 0
    shutil.rmtree(daemon.state_dir)
    daemon.start()
    converted(daemon, drop, 2)
    write_model(daemon.models_dir / "late.sda", "id-late", "\udfff", training_date="9999-12-31T23:59:59-14:00")
    (event,) = daemon.wait_for("library.entry_adopted", file="late.sda")
    assert event["name"] == "\N{REPLACEMENT CHARACTER}"
    assert daemon.stop() == 0
    assert daemon.events("daemon.crashed") == []


def test_an_odd_date_in_the_index_and_no_ledger(daemon: DaemonProcess, drop: Drop) -> None:
    """The memory is made anew from the models; what one of them says of its date does not matter."""
    daemon.start()
    for seed in (1, 2):
        converted(daemon, drop, seed)
    daemon.stop()
    data = index_data(daemon)
    for entry, date in zip(data["models"].values(), ("0001-01-01T00:00:00+14:00", "yesterday"), strict=True):
        entry["save_date"] = date
    (daemon.models_dir / INDEX).write_text(json.dumps(data))
    shutil.rmtree(daemon.state_dir)
    mark = daemon.mark()
    daemon.start()
    (event,) = daemon.wait_for("ledger.rebuilt", after=mark)
    assert (event["models"], event["checkpoints"]) == (2, 2)
    converted(daemon, drop, 3)
    assert daemon.events("conversion.started", mark) == daemon.events(
        "conversion.started", mark, path=str(daemon.drop / "well3" / "x.pt")
    )


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_names_and_paths_that_are_no_text(daemon: DaemonProcess, drop: Drop, log_format: str) -> None:
    """Lone surrogates and control characters in a sidecar, in a tag and in a path: converted, logged, remembered."""
    daemon.write_config(metadata={"name": "{{ sidecar.title }}", "tags": ["{{ run }}"]}, logging={"format": log_format})
    folder = daemon.drop / os.fsdecode(b"r\xff\x1b[2Jn")
    path = drop(daemon.base / "x.pt", 1)
    title = json.dumps("R\ud800in \x1b[31m\udcff")
    folder.mkdir()
    (folder / "x.pt.meta.json").write_text(f'{{"title": {title}, "long": {"1" * 5000}, "nan": NaN}}')
    daemon.start(wait=False)
    path.rename(folder / "x.pt")
    (entry,) = daemon.wait_for_models(1)
    assert (entry.name, entry.file_path) == ("R\ud800in \x1b[31m\udcff", "r_in_31m.sda")
    assert read_model_header(daemon.models_dir / entry.file_path).metadata.name == entry.name
    eventually(lambda: "conversion.succeeded" in daemon.log.read_text(errors="strict"), "it is logged")
    facts = daemon.status(lambda facts: facts["today"]["converted"] == 1)
    assert facts["failed"] == []
    assert daemon.stop() == 0
    log = daemon.log.read_bytes()
    log.decode("utf-8")
    assert b"\x1b" not in log
    assert b"\\ud" not in log
    daemon.start(wait=False)
    eventually(lambda: daemon.log.read_bytes().count(b"rescan.finished") >= 2, "it looked at everything again")
    assert daemon.log.read_bytes().count(b"conversion.started") == 1, "it was remembered"


@pytest.fixture
def distant() -> Iterator[Path]:
    """A folder of a file system that knows years of five digits; skips where there is none."""
    folder = Path("/dev/shm") / f"sda-daemon-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "x").touch()
        os.utime(folder / "x", (1, 2**38))
    except OSError:
        pytest.skip("no such file system here")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("seconds", [13_569_465_600, 2**38, -(2**37)], ids=["2400", "10680", "before Christ"])
def test_a_checkpoint_from_the_future(daemon: DaemonProcess, drop: Drop, distant: Path, seconds: int) -> None:
    """A clock that was wrong: later than the ledger's numbers reach, later than calendars, before them."""
    (distant / "x").unlink()
    daemon.write_config(
        watch=[{"path": str(distant), "settle_s": 0.2}, {"path": "drop", "settle_s": 0.2}],
        metadata={"name": "{{ run }} {{ mtime.year }}"},
    )
    path = drop(distant / "run" / "x.pt", 1)
    os.utime(path, (1, seconds))
    daemon.start()
    daemon.wait_for("conversion.succeeded", path=str(path))
    mark = daemon.mark()
    drop(daemon.drop / "other" / "x.pt", 2)
    daemon.wait_for("conversion.succeeded", path=str(daemon.drop / "other" / "x.pt"))
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.events("conversion.started", mark, path=str(path)) == []
    assert daemon.cli("status").returncode == 0


def test_select_with_an_index_that_knows_no_epoch(daemon: DaemonProcess, drop: Drop) -> None:
    """Another program has written `null`, a text of digits and a number beyond all floats: the best one stays."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "select": "best"}])
    from sda_daemon.demo.checkpoints import write_small_checkpoint

    def trained(number: int, loss: float) -> None:
        path = write_small_checkpoint(daemon.base / f"{number}.pt", number, epoch=number, val_loss=loss)
        (daemon.drop / "run").mkdir(exist_ok=True)
        path.rename(daemon.drop / "run" / path.name)
        daemon.wait_for("conversion.succeeded", path=str(daemon.drop / "run" / path.name))

    daemon.start()
    trained(1, 0.5)
    daemon.stop()
    data = index_data(daemon)
    for entry in data["models"].values():
        entry.update(training_epochs=None, final_val_loss=10**400)
    (daemon.models_dir / INDEX).write_text(json.dumps(data))
    daemon.start()
    trained(2, 0.3)
    eventually(lambda: [entry.training_epochs for entry in daemon.models()] == [2], "the better one is left")
    assert daemon.stop() == 0


def test_a_ledger_with_odd_rows(daemon: DaemonProcess, drop: Drop) -> None:
    """Rows that make no sense are as good as none: their checkpoints are looked at again, the others are not."""
    daemon.start()
    for seed in (1, 2):
        converted(daemon, drop, seed)
    daemon.stop()
    with sqlite3.connect(daemon.state_dir / "ledger.sqlite3") as database:
        database.execute("UPDATE checkpoints SET status = 'of the future' WHERE path LIKE '%well1%'")
        row = (
            "INSERT INTO checkpoints VALUES (CAST(x'ff' AS TEXT), ?, 1, 1, 1, 'failed', 'x', 1, x'', '', '', '', 1, 1)"
        )
        database.execute(row, (str(daemon.drop),))
        row = (
            "INSERT INTO checkpoints VALUES (?, ?, 1, 1, 1, 'refused', 1, 'broken', 'why not', '', '', '', 9e99, 9e99)"
        )
        (daemon.base / "failed.pt").write_bytes(b"junk")
        database.execute(row, (str(daemon.base / "failed.pt"), str(daemon.base)))
        database.execute("INSERT OR REPLACE INTO report VALUES ('library', 'no JSON'), ('watches', '5')")
    database.close()
    mark = daemon.mark()
    facts = json.loads(daemon.cli("status", "--json").stdout)
    assert [item["reason"] for item in facts["failed"]] == ["why not"]
    assert "why not" in daemon.cli("status").stdout
    daemon.start()
    daemon.wait_for("checkpoint.skipped", after=mark, path=str(daemon.drop / "well1" / "x.pt"))
    assert [event["path"] for event in daemon.events("conversion.started", mark)] == [
        str(daemon.drop / "well1" / "x.pt")
    ]
    converted(daemon, drop, 3)
    assert daemon.stop() == 0


TIDYING = """
import sys
import sda_daemon.conversion.publish as publishing
from sda_daemon.cli.app import run_app
inner, calls = publishing.publish_new, []
def publish_new(temporary, folder, names):
    calls.append(1)
    if len(calls) == 2:
        temporary.unlink()
    return inner(temporary, folder, names)
publishing.publish_new = publish_new
run_app(sys.argv[1:])
"""
"""A daemon beside which something tidies up: the second finished file is gone just before it would get its name."""


def test_one_that_cannot_be_published(daemon: DaemonProcess, drop: Drop) -> None:
    """Of five that end together four are in the library at once; the fifth fails alone, is tried again, and comes."""
    daemon.write_config(workers=2)
    sources = [drop(daemon.base / "away" / f"run{seed}" / "x.pt", seed) for seed in range(5)]
    daemon.start_within(TIDYING)
    for source in sources:
        (daemon.drop / source.parent.name).mkdir()
        source.rename(daemon.drop / source.parent.name / source.name)
    (failed,) = daemon.wait_for("conversion.failed")
    assert (failed["kind"], failed["permanent"], failed["attempt"]) == ("cannot_publish", False, 1)
    assert "No such file or directory" in failed["reason"]
    assert failed["retry_in_s"] is not None
    daemon.wait_for("conversion.succeeded", count=4)
    assert daemon.events("conversion.succeeded", path=failed["path"]) == []
    daemon.wait_for("conversion.succeeded", path=failed["path"])
    daemon.wait_for_models(5)
    assert len(daemon.events("conversion.failed")) == 1
    assert len(daemon.events("conversion.started")) == 6
    assert daemon.stop() == 0
    assert [path.name for path in daemon.models_dir.glob(".sda-work-*")] == []


def test_a_name_that_ten_thousand_have(daemon: DaemonProcess, drop: Drop) -> None:
    """Whatever has all the numbered names: more models of this name come into the library, and others beside them."""
    daemon.models_dir.mkdir()
    for name in ("rain.sda", *(f"rain_{number}.sda" for number in range(1, 10_000))):
        (daemon.models_dir / name).mkdir()
    daemon.write_config(metadata={"name": "{{ 'Rain' if epoch == 7 else run }}"})
    from sda_daemon.demo.checkpoints import write_small_checkpoint

    daemon.start()
    drop(daemon.drop / "a" / "x.pt", 1)
    drop(daemon.drop / "b" / "x.pt", 2)
    other = write_small_checkpoint(daemon.base / "x.pt", 3, epoch=8)
    (daemon.drop / "c").mkdir()
    other.rename(daemon.drop / "c" / "x.pt")
    entries = {entry.model_id: entry for entry in daemon.wait_for_models(3)}
    assert {entry.file_path for entry in entries.values()} == {
        "c.sda" if entry.name == "c" else f"rain_{model_id[:8]}.sda" for model_id, entry in entries.items()
    }
    assert daemon.events("conversion.failed") == []
    assert daemon.stop() == 0
