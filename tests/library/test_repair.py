"""Repair: what it finds, what it does, and that it finds nothing the second time."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.library import ModelLibrary
from sda_daemon.library.repair import FindingKind, RepairPlan, copy_id
from sda_daemon.models.header import read_model_header
from tests.daemon_process import eventually
from tests.library.model_files import write_model, write_payload


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """A library of three models, a, b and c."""
    library = ModelLibrary(tmp_path / "models")
    library.add_entries([write_model(library.models_dir / f"{name}.sda") for name in "abc"])
    assert library.repair_index() == (0, 0)
    return library


def state(library: ModelLibrary) -> dict[str, str]:
    """What an index read anew says: file to id."""
    return {entry.file_path: entry.model_id for entry in ModelLibrary(library.models_dir).list_all()}


def kinds(plan: RepairPlan) -> list[tuple[str, str]]:
    return sorted((finding.kind.value, finding.file) for finding in plan.findings)


def settled(library: ModelLibrary) -> bool:
    """Whether there is nothing more to repair: here, and for a process that starts anew and has no cache."""
    first = library.plan_repair().findings == () and library.repair_index() == (0, 0)
    cache = library.models_dir / ".model_library.scan.json"
    cache.unlink(missing_ok=True)
    anew = ModelLibrary(library.models_dir)
    return first and [f for f in anew.plan_repair().findings if f.kind is not FindingKind.INVALID] == []


START = {"a.sda": "id-of-a", "b.sda": "id-of-b", "c.sda": "id-of-c"}


def test_b23_a_deleted_file_loses_its_entry(library: ModelLibrary) -> None:
    """And only that."""
    (library.models_dir / "b.sda").unlink()
    assert kinds(library.plan_repair()) == [("missing", "b.sda")]
    assert library.repair_index() == (1, 0)
    assert state(library) == {"a.sda": "id-of-a", "c.sda": "id-of-c"}
    assert settled(library)


def test_b23_an_added_file_is_adopted(library: ModelLibrary) -> None:
    """Its entry says what the file says, its size included."""
    expected = write_model(library.models_dir / "d.sda", name="Dawn", tags=["x"], final_val_loss=0.5)
    plan = library.plan_repair()
    assert kinds(plan) == [("orphan", "d.sda")]
    assert (plan.removed, plan.added, plan.entries) == (0, 1, 3)
    assert state(library) == START
    assert library.repair_index() == (0, 1)
    assert library.get("id-of-d") == expected
    assert settled(library)


def test_b23_a_renamed_file_keeps_its_entry(library: ModelLibrary) -> None:
    """It counts as one removed and one added, and what only the index says of it stays."""
    library.add_entry(dataclasses.replace(library.list_all(sort_by="name", reverse=False)[0], description="edited"))
    (library.models_dir / "a.sda").rename(library.models_dir / "z.sda")
    assert kinds(library.plan_repair()) == [("moved", "z.sda")]
    assert library.repair_index() == (1, 1)
    assert state(library) == {"b.sda": "id-of-b", "c.sda": "id-of-c", "z.sda": "id-of-a"}
    moved = library.get("id-of-a")
    assert moved is not None
    assert moved.description == "edited"
    assert library.plan_repair().findings == ()
    assert ModelLibrary(library.models_dir).plan_repair().findings == ()


def test_b24_a_copy_gets_an_id_of_its_own(library: ModelLibrary) -> None:
    """The original stays what it is; repairing again changes nothing."""
    shutil.copy2(library.models_dir / "a.sda", library.models_dir / "0.sda")
    assert kinds(library.plan_repair()) == [("copy", "0.sda")]
    assert library.repair_index() == (0, 1)
    assert state(library) == {**START, "0.sda": copy_id("id-of-a", "0.sda")}
    assert settled(library)
    os.utime(library.models_dir / "0.sda")  # looked at again, it is still the copy
    os.utime(library.models_dir / "a.sda")
    assert library.repair_index() == (0, 0)
    assert state(library) == {**START, "0.sda": copy_id("id-of-a", "0.sda")}


def test_b24_a_rebuilt_index_has_the_same_ids(library: ModelLibrary) -> None:
    """The copy's id follows from original and name: rebuilt, the longer name is the copy again."""
    shutil.copy2(library.models_dir / "a.sda", library.models_dir / "a copy.sda")
    library.repair_index()
    before = state(library)
    library.index_path.unlink()
    assert ModelLibrary(library.models_dir).repair_index() == (0, 4)
    assert state(library) == before


def test_b24_a_copy_outlives_its_original_and_can_be_renamed(library: ModelLibrary) -> None:
    """No entry is lost or doubled on the way."""
    shutil.copy2(library.models_dir / "a.sda", library.models_dir / "copy.sda")
    library.repair_index()
    (library.models_dir / "copy.sda").rename(library.models_dir / "other.sda")
    assert library.repair_index() == (1, 1)
    (library.models_dir / "a.sda").unlink()
    assert library.repair_index() == (1, 0)
    assert set(state(library)) == {"b.sda", "c.sda", "other.sda"}
    assert settled(library)


def test_b23_a_changed_file_refreshes_its_entry(library: ModelLibrary) -> None:
    """The same model with other facts: the entry says what the file says, and counts as neither."""
    expected = write_model(library.models_dir / "a.sda", "id-of-a", "New name", has_analysis=True)
    assert kinds(library.plan_repair()) == [("changed", "a.sda")]
    assert library.plan_repair().findings[0].reason == "the file has changed"
    assert library.repair_index() == (0, 0)
    assert library.get("id-of-a") == expected
    assert settled(library)


def test_b23_a_changed_file_is_noticed_without_a_cache(library: ModelLibrary) -> None:
    """Also with its old date (cp -p) and the same size: it is newer than the index. The words of the index stay."""
    path = library.models_dir / "a.sda"
    status = path.stat()
    write_model(path, "id-of-a", "A", training_epochs=7)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    (library.models_dir / ".model_library.scan.json").unlink()
    anew = ModelLibrary(library.models_dir)
    anew.repair_index()
    changed = anew.get("id-of-a")
    assert changed is not None
    assert (changed.name, changed.training_epochs) == ("a", 7)


def test_b23_a_file_replaced_by_another_model(library: ModelLibrary) -> None:
    """The entry gives way to that of the model that is there now."""
    write_model(library.models_dir / "a.sda", "id-new", "Another")
    assert kinds(library.plan_repair()) == [("replaced", "a.sda")]
    assert library.repair_index() == (1, 1)
    assert state(library) == {**START, "a.sda": "id-new"}
    assert settled(library)


def test_b23_files_that_changed_places(library: ModelLibrary) -> None:
    """Each id follows its file."""
    folder = library.models_dir
    (folder / "a.sda").rename(folder / "x")
    (folder / "b.sda").rename(folder / "a.sda")
    (folder / "x").rename(folder / "b.sda")
    write_model(folder / "a.sda", "id-of-b", "b was moved")  # so that the sizes differ
    assert library.repair_index() == (2, 2)
    assert state(library) == {"a.sda": "id-of-b", "b.sda": "id-of-a", "c.sda": "id-of-c"}
    assert settled(library)


def test_b23_one_model_moved_over_another(library: ModelLibrary) -> None:
    """The one that is gone leaves the index, the other one follows its file."""
    write_model(library.models_dir / "a.sda", "id-of-a", "a longer name")
    library.repair_index()
    (library.models_dir / "a.sda").rename(library.models_dir / "b.sda")
    assert kinds(library.plan_repair()) == [("moved", "b.sda"), ("replaced", "b.sda")]
    assert library.repair_index() == (2, 1)
    assert state(library) == {"b.sda": "id-of-a", "c.sda": "id-of-c"}
    assert settled(library)


def test_b23_one_model_copied_over_another(library: ModelLibrary) -> None:
    """The copy has an id of its own there too."""
    write_model(library.models_dir / "a.sda", "id-of-a", "a longer name")
    library.repair_index()
    shutil.copyfile(library.models_dir / "a.sda", library.models_dir / "b.sda")
    assert library.repair_index() == (1, 1)
    assert state(library) == {**START, "b.sda": copy_id("id-of-a", "b.sda")}
    assert settled(library)


@pytest.mark.parametrize("raw", [b"", b"junk", b"PK\x03\x04half a model"])
def test_a_file_that_is_no_model_is_left_alone(
    raw: bytes, library: ModelLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    """Reported once, not read again until it changes, adopted when it has become one."""
    path = library.models_dir / "x.sda"
    path.write_bytes(raw)
    assert library.repair_index() == (0, 0)
    told = [record.getMessage() for record in caplog.records if "library.file_invalid" in record.getMessage()]
    assert len(told) == 1
    assert "x.sda" in told[0]
    path.chmod(0)  # to an ordinary user, reading it again would look different
    assert library.repair_index() == (0, 0)
    assert ModelLibrary(library.models_dir).plan_repair().findings == ()
    path.chmod(0o644)
    assert path.read_bytes() == raw
    write_model(path)
    assert library.repair_index() == (0, 1)


@pytest.mark.needs_user("root may read everything")
def test_a_file_that_may_not_be_read_is_tried_each_time(library: ModelLibrary) -> None:
    """Reported once, with what to do; adopted when it may be read, although nothing of it has changed."""
    path = library.models_dir / "x.sda"
    expected = write_model(path, "id-of-x")
    path.chmod(0)
    (finding,) = library.plan_repair().findings
    assert (finding.kind, finding.reason) == (
        FindingKind.INVALID,
        f"Permission denied ({path}). Check owner and permissions",
    )
    assert library.repair_index() == (0, 0)
    assert library.plan_repair().findings == ()
    path.chmod(0o644)
    assert library.repair_index() == (0, 1)
    assert library.get("id-of-x") == expected
    assert settled(library)


def test_an_entry_whose_file_is_broken_stays(library: ModelLibrary) -> None:
    """It may just be being copied: reported once, and well again when the file is."""
    path = library.models_dir / "a.sda"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert kinds(library.plan_repair()) == [("invalid", "a.sda")]
    assert library.repair_index() == (0, 0)
    assert library.plan_repair().findings == ()
    path.write_bytes(good)
    assert library.repair_index() == (0, 0)
    assert state(library) == START


@pytest.mark.parametrize("version", [2, "1", None, True])
def test_models_of_other_versions_are_not_adopted(version: Any, library: ModelLibrary) -> None:
    """Nor is a file with odd metadata."""
    payload = {"format": "sda_model", "version": version, "metadata": {"name": "x"}}
    write_payload(library.models_dir / "x.sda", payload)
    write_payload(library.models_dir / "y.sda", {**payload, "version": 1, "metadata": {"training_epochs": "ten"}})
    write_payload(library.models_dir / "z.sda", {**payload, "version": 1, "format": "other"})
    assert kinds(library.plan_repair()) == [("invalid", "x.sda"), ("invalid", "y.sda"), ("invalid", "z.sda")]


def test_a_file_without_an_id_gets_a_lasting_one(library: ModelLibrary) -> None:
    """The same whenever the index is rebuilt."""
    write_payload(library.models_dir / "x.sda", {"format": "sda_model", "version": 1, "metadata": {"name": "x"}})
    assert library.repair_index() == (0, 1)
    before = state(library)
    assert before["x.sda"]
    assert settled(library)
    library.index_path.unlink()
    assert ModelLibrary(library.models_dir).repair_index() == (0, 4)
    assert state(library) == before


def test_temporary_and_hidden_files_are_ignored(library: ModelLibrary) -> None:
    """Unfinished files, those of others, folders and links."""
    folder = library.models_dir
    for name in (".x.sda", "x.sda.tmp", "x.sda.part", "x.SDA", ".x.sda.Ab12Cd"):
        write_model(folder / name)
    (folder / "folder.sda").mkdir()
    os.mkfifo(folder / "pipe.sda")
    (folder / "link.sda").symlink_to(folder / "a.sda")
    assert library.plan_repair().findings == ()


def test_names_of_any_bytes_are_adopted(library: ModelLibrary) -> None:
    """A name that is no valid text survives in the index too."""
    name = os.fsdecode(b"caf\xe9.sda")
    write_model(library.models_dir / name, "odd", "odd")
    shutil.copyfile(library.models_dir / name, library.models_dir / os.fsdecode(b"caf\xe9\xe9.sda"))
    assert library.repair_index() == (0, 2)
    assert state(library)[name] == "odd"
    assert settled(library)


def test_b26_entries_that_point_outside_are_never_opened(library: ModelLibrary, tmp_path: Path) -> None:
    """Relative, absolute, or a link: even a fitting model out there stays untouched.

    They are not shown, and no one but a person has them removed.
    """
    outside = tmp_path / "outside.sda"
    write_model(outside)
    os.utime(outside, ns=(1, 1))
    (library.models_dir / "link.sda").symlink_to(outside)
    data = json.loads(library.index_path.read_bytes())
    for number, path in enumerate(["../outside.sda", str(outside), "link.sda", "a/../../outside.sda", "x\0.sda"]):
        fields = {**data["models"]["id-of-a"], "model_id": f"evil{number}", "file_path": path}
        data["models"][f"evil{number}"] = fields
    library.index_path.write_text(json.dumps(data))
    plan = library.plan_repair()
    assert {finding.kind for finding in plan.findings} == {FindingKind.OUTSIDE}
    assert sorted(finding.old_id for finding in plan.findings) == [f"evil{number}" for number in range(5)]
    assert library.repair_index() == (0, 0)
    assert state(library) == START
    assert library.get("evil2") is None
    assert library.count() == 3
    assert library.search("a") == [library.get("id-of-a")]
    assert {key for key in json.loads(library.index_path.read_bytes())["models"] if key.startswith("evil")} == {
        f"evil{number}" for number in range(5)
    }
    assert len(library.apply_repair(library.plan_repair())) == 5
    assert library.plan_repair().findings == ()
    assert set(json.loads(library.index_path.read_bytes())["models"]) == set(START.values())
    assert outside.stat().st_atime_ns == 1
    assert (library.models_dir / "link.sda").is_symlink()


def test_two_entries_of_one_file(library: ModelLibrary) -> None:
    """One that tells of another model has lost its file, whichever came first; one that does not says it twice."""
    library.add_entry(write_model(library.models_dir / "a.sda", "id-of-a", save_date="2026-01-02T03:04:05"))
    data = json.loads(library.index_path.read_bytes())
    fields = data["models"]["id-of-a"]
    stale = {**fields, "model_id": "stale", "save_date": "2025-01-02T03:04:05"}
    alias = {**fields, "model_id": "alias", "name": "mine", "tags": ["x"], "rating": 5}
    data["models"] = {"stale": stale, **data["models"], "alias": alias}
    library.index_path.write_text(json.dumps(data))
    for again in (library, ModelLibrary(library.models_dir)):
        assert kinds(again.plan_repair()) == [("shared", "a.sda")]
    assert library.repair_index() == (1, 0)
    assert settled(library)
    found = json.loads(library.index_path.read_bytes())["models"]
    assert {model_id for model_id, entry in found.items() if entry["file_path"] == "a.sda"} == {"id-of-a", "alias"}
    assert found["alias"] == alias
    write_model(library.models_dir / "a.sda", "id-of-a", save_date="2026-01-02T03:04:05", training_epochs=77777777777)
    library.repair_index()
    assert {entry.training_epochs for entry in library.entries() if entry.file_path == "a.sda"} == {77777777777}
    assert settled(library)


def test_a_plan_changes_nothing(library: ModelLibrary) -> None:
    """Not one byte in the folder, however often it is made, and each says the same."""
    folder = library.models_dir
    (folder / "a.sda").unlink()
    write_model(folder / "d.sda")
    write_model(folder / "b.sda", "id-of-b", "changed")
    (folder / "x.sda").write_text("junk")

    def everything() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = everything()
    expected = [("changed", "b.sda"), ("invalid", "x.sda"), ("missing", "a.sda"), ("orphan", "d.sda")]
    for _ in range(3):
        assert kinds(library.plan_repair()) == expected
    assert everything() == before


def test_a_plan_can_be_applied_in_part(library: ModelLibrary) -> None:
    """By kind or by file; what was left out is found again."""
    folder = library.models_dir
    (folder / "a.sda").unlink()
    write_model(folder / "b.sda", "id-of-b", "changed")
    write_model(folder / "d.sda")
    write_model(folder / "e.sda")
    plan = library.plan_repair()
    part = plan.without([FindingKind.MISSING, "d.sda", "b.sda"])
    assert kinds(part) == [("orphan", "e.sda")]
    assert kinds(plan) != kinds(part)
    library.apply_repair(part)
    assert set(state(library)) == {"a.sda", "b.sda", "c.sda", "e.sda"}
    assert kinds(library.plan_repair()) == [("changed", "b.sda"), ("missing", "a.sda"), ("orphan", "d.sda")]


def test_a_stale_plan_does_no_harm(library: ModelLibrary) -> None:
    """What has changed since it was made is passed over: a file is back, gone again, adopted by another."""
    folder = library.models_dir
    moved = folder / "a.sda"
    moved.rename(folder / "away")
    (folder / "b.sda").unlink()
    write_model(folder / "d.sda")
    write_model(folder / "e.sda")
    plan = library.plan_repair()
    (folder / "away").rename(moved)
    (folder / "d.sda").unlink()
    other = ModelLibrary(folder)
    other.remove("id-of-b")
    other.add_entry(write_model(folder / "f.sda", "id-of-e"))
    done = library.apply_repair(plan)
    assert done == []
    assert state(library) == {"a.sda": "id-of-a", "c.sda": "id-of-c", "f.sda": "id-of-e"}


def test_each_finding_is_warned_of(library: ModelLibrary, caplog: pytest.LogCaptureFixture) -> None:
    """With file, id and reason."""
    folder = library.models_dir
    (folder / "a.sda").unlink()
    write_model(folder / "b.sda", "id-of-b", "changed")
    write_model(folder / "d.sda")
    (folder / "x.sda").write_text("junk")
    caplog.clear()
    library.repair_index()
    warned = {
        record.getMessage().split()[0]: record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and record.getMessage().startswith("library.")
    }
    assert set(warned) == {
        "library.entry_removed",
        "library.entry_updated",
        "library.entry_adopted",
        "library.file_invalid",
    }
    assert "its file is gone" in warned["library.entry_removed"]


def test_only_new_and_changed_files_are_opened(library: ModelLibrary) -> None:
    """And by a later process, with the cache, none at all."""
    from sda_daemon.library.repair import plan_repair
    from sda_daemon.library.scan import load_known, scan_models
    from sda_daemon.models.header import read_model_header

    write_model(library.models_dir / "d.sda")
    opened: list[str] = []

    def reading(path: Path) -> Any:
        opened.append(path.name)
        return read_model_header(path)

    folder = library.models_dir
    entries = {entry.model_id: entry for entry in library.list_all()}
    plan = plan_repair(folder, entries, scan_models(folder), load_known(folder), 0, reading)
    assert opened == ["d.sda"]
    entries["id-of-d"] = plan.findings[0].new  # type: ignore[assignment]
    assert plan_repair(folder, entries, scan_models(folder), plan.known, 0, reading).findings == ()
    assert opened == ["d.sda"]


@pytest.mark.parametrize("raw", ["", "{", "[]", '{"files": []}', '{"files": {"a.sda": [1]}}'])
def test_a_broken_cache_is_as_good_as_none(raw: str, library: ModelLibrary) -> None:
    """It only costs time."""
    (library.models_dir / ".model_library.scan.json").write_text(raw)
    (library.models_dir / "a.sda").unlink()
    assert ModelLibrary(library.models_dir).repair_index() == (1, 0)


def taken_over(folder: Path) -> tuple[ModelLibrary, bytes]:
    """A library in which one model's file was deleted, and another model, of the same size, was given its name.

    Also returned is the index as it was before that.
    """
    library = ModelLibrary(folder)
    library.add_entry(write_model(folder / "x.sda", "first-id", "strings", save_date="2026-01-02T03:04:05"))
    before = library.index_path.read_bytes()
    size = (folder / "x.sda").stat().st_size
    (folder / "x.sda").unlink()
    library.add_entry(write_model(folder / "x.sda", "other-id", "strings", save_date="2026-01-02T03:04:06"))
    assert (folder / "x.sda").stat().st_size == size
    return library, before


def eventually_older(path: Path) -> None:
    """Wait until what is written from now on is newer than a file by more than clocks may be wrong."""
    other = path.with_name("clock")

    def is_older() -> bool:
        other.touch()
        return other.stat().st_mtime_ns > path.stat().st_ctime_ns + 10**8

    eventually(is_older, "time goes by")
    other.unlink()


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_name_that_another_model_has_now_after_a_recovery(tmp_path: Path, is_same_process: bool) -> None:
    """The backup is older than the file: what it says of that name is not believed, although the size is right."""
    library, _ = taken_over(tmp_path)
    eventually_older(tmp_path / "x.sda")
    (tmp_path / "model_library.json").write_text("{")
    assert json.loads((tmp_path / "model_library.json.bak").read_bytes())["models"].keys() == {"first-id"}
    if is_same_process:
        library.refresh()
    else:
        library = ModelLibrary(tmp_path)
    assert [item.model_id for item in library.list_all()] == ["other-id"]
    assert library.holds("other-id")


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_name_that_another_model_has_now_after_a_stale_index(tmp_path: Path, is_same_process: bool) -> None:
    """The application writes the index from its own memory, in which the file is still the first model's."""
    library, before = taken_over(tmp_path)
    library.repair_index()
    eventually_older(tmp_path / "x.sda")
    library.index_path.write_bytes(before)
    if not is_same_process:
        library = ModelLibrary(tmp_path)
    library.repair_index()
    assert [item.model_id for item in library.list_all()] == ["other-id"]


def test_b25_a_recovery_forgets_nothing(library: ModelLibrary) -> None:
    """What is missing when a broken index is found is given time to come back, as at any other moment."""
    away = library.models_dir.with_name("away")
    away.mkdir()
    library.add_entry(write_model(library.models_dir / "d.sda"))
    for name in "ab":
        (library.models_dir / f"{name}.sda").rename(away / f"{name}.sda")
    library.index_path.write_text("{")
    again = ModelLibrary(library.models_dir)
    assert set(state(again)) >= {"a.sda", "b.sda", "c.sda"}
    for name in "ab":
        (away / f"{name}.sda").rename(library.models_dir / f"{name}.sda")
    assert again.repair_index() in ((0, 0), (0, 1))
    assert state(again) == {**START, "d.sda": "id-of-d"}


def test_b25_the_brake_holds_in_a_recovery_too(library: ModelLibrary) -> None:
    """Most files hold other models than the backup says: no entry goes, and the others are taken up."""
    library.add_entry(write_model(library.models_dir / "d.sda"))
    for name in "abc":
        write_model(library.models_dir / f"{name}.sda", f"other-{name}", "a longer name")
    write_model(library.models_dir / "e.sda")
    library.index_path.write_text("{")
    eventually_older(library.models_dir / "a.sda")
    again = ModelLibrary(library.models_dir)
    kept = {item.model_id for item in again.list_all()}
    assert {"id-of-a", "id-of-b", "id-of-c", "id-of-e"} <= kept
    assert not any(model_id.startswith("other") for model_id in kept)
    assert again.plan_repair().is_mass_removal
    again.repair_index()
    assert kept <= {item.model_id for item in again.list_all()}
    again.repair_index(prune_most=True)
    assert {"other-a", "other-b", "other-c"} <= {item.model_id for item in again.list_all()}


def test_b25_the_brake_holds_for_a_repair_from_python(library: ModelLibrary) -> None:
    """Where most entries would go, none goes, but what is new comes; unless one says that they are really gone."""
    write_model(library.models_dir / "new.sda", "id-of-new")
    for name in "abc":
        (library.models_dir / f"{name}.sda").unlink()
    assert library.repair_index() == (0, 1)
    assert {item.model_id for item in library.list_all()} == {"id-of-a", "id-of-b", "id-of-c", "id-of-new"}
    assert library.repair_index(prune_most=True) == (3, 0)
    assert {item.model_id for item in library.list_all()} == {"id-of-new"}


# --- what the index and the file say otherwise -------------------------------------------------------


WORDS: dict[str, Any] = {
    "name": "Mine",
    "description": "only in the index",
    "dataset_name": "rain",
    "dataset_file_count": 7,
    "dataset_total_duration_s": 8.5,
    "tags": ["x"],
}


def in_words(library: ModelLibrary, file: str) -> dict[str, Any]:
    """What an index read anew calls a model."""
    (found,) = [entry for entry in ModelLibrary(library.models_dir).entries() if entry.file_path == file]
    return {name: value for name, value in found.to_dict().items() if name in WORDS}


def in_index_only(library: ModelLibrary) -> None:
    """Change all words in the index, as the application does: with its own writer, and the files as they are."""
    data = json.loads(library.index_path.read_bytes())
    for fields in data["models"].values():
        fields.update(WORDS)
    library.index_path.write_text(json.dumps(data))


def change_mode(path: Path) -> None:
    path.chmod(0o600)


def change_date(path: Path) -> None:
    os.utime(path, ns=(1, 2))


def copy_back(path: Path) -> None:
    """As `cp -rp` and a moved folder do: another inode."""
    shutil.copy2(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def add_a_key(path: Path) -> None:
    """As the third generation adds a vocoder, in place."""
    header = read_model_header(path)
    payload = {"format": "sda_model", "version": 1, "metadata": header.metadata.to_dict(), "vocoder_state": {"x": 1}}
    write_payload(path.with_suffix(".new"), payload)
    path.write_bytes(path.with_suffix(".new").read_bytes())
    path.with_suffix(".new").unlink()


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "first start"])
@pytest.mark.parametrize("touch", [change_mode, change_date, copy_back, add_a_key])
def test_b23_words_that_only_the_index_has_stay(
    touch: Callable[[Path], None], is_known: bool, library: ModelLibrary
) -> None:
    """A file that says what it said before changes nothing of them; of none of the models at once."""
    in_index_only(library)
    if not is_known:
        (library.models_dir / ".model_library.scan.json").unlink()
        library = ModelLibrary(library.models_dir)
    for name in "abc":
        touch(library.models_dir / f"{name}.sda")
    library.repair_index()
    for name in "abc":
        assert in_words(library, f"{name}.sda") == WORDS
    assert settled(library)


def test_b23_what_a_file_says_otherwise_than_before_counts(library: ModelLibrary) -> None:
    """Field by field: the rest stays what the index says."""
    in_index_only(library)
    library.repair_index()
    facts: dict[str, Any] = {"save_date": "2026-01-02T03:04:05", "training_epochs": 3}
    write_model(library.models_dir / "a.sda", "id-of-a", description="from the file", **facts)
    library.repair_index()
    assert in_words(library, "a.sda") == {**WORDS, "description": "from the file"}
    again = library.get("id-of-a")
    assert again is not None
    assert (again.save_date, again.training_epochs) == tuple(facts.values())
    assert settled(library)


def test_b23_a_file_that_moves_keeps_the_words_of_the_index(library: ModelLibrary) -> None:
    """Also where its date and inode are others afterwards, as after a move from another disk."""
    in_index_only(library)
    shutil.copyfile(library.models_dir / "a.sda", library.models_dir / "z.sda")
    (library.models_dir / "a.sda").unlink()
    assert library.repair_index() == (1, 1)
    assert in_words(library, "z.sda") == WORDS


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "first start"])
def test_an_entry_under_another_id_than_its_file_has_stays(is_known: bool, library: ModelLibrary) -> None:
    """Presets and history know the model by the one in the index."""
    facts: dict[str, Any] = {"save_date": "2026-01-02T03:04:05", "final_train_loss": 0.5}
    library.add_entry(write_model(library.models_dir / "a.sda", "id-of-a", **facts))
    library.repair_index()
    text = library.index_path.read_text().replace('"id-of-a"', '"another"')
    library.index_path.write_text(text)
    if not is_known:
        (library.models_dir / ".model_library.scan.json").unlink()
        library = ModelLibrary(library.models_dir)
    os.utime(library.models_dir / "a.sda")
    assert library.repair_index() == (0, 0)
    assert state(library) == {**START, "a.sda": "another"}
    assert settled(library)
    add_a_key(library.models_dir / "a.sda")
    assert library.repair_index() == (0, 0)
    assert state(library) == {**START, "a.sda": "another"}


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "first start"])
def test_all_entries_of_a_file_follow_it(is_known: bool, library: ModelLibrary) -> None:
    """Also those that stand under another id than the file says, with what only the index has."""
    facts: dict[str, Any] = {"save_date": "2026-01-02T03:04:05", "final_train_loss": 0.5}
    library.add_entry(write_model(library.models_dir / "a.sda", "id-of-a", **facts))
    library.repair_index()
    data = json.loads(library.index_path.read_bytes())
    fields = data["models"].pop("id-of-a")
    for model_id, name in (("one", "first"), ("two", "second")):
        data["models"][model_id] = {**fields, "model_id": model_id, "name": name, "tags": [name], "rating": name}
    library.index_path.write_text(json.dumps(data))
    if is_known:
        library.repair_index()
    else:
        (library.models_dir / ".model_library.scan.json").unlink()
    library = ModelLibrary(library.models_dir)
    (library.models_dir / "a.sda").rename(library.models_dir / "z.sda")
    library.repair_index()
    found = json.loads(library.index_path.read_bytes())["models"]
    assert found.keys() == {"one", "two", "id-of-b", "id-of-c"}
    for model_id in ("one", "two"):
        assert found[model_id] == {**data["models"][model_id], "file_path": "z.sda"}
    assert settled(library)


def test_an_old_memory_does_not_win_over_the_file(library: ModelLibrary) -> None:
    """The application writes the entry that it read before the file was changed: the file says what is true."""
    before = library.index_path.read_bytes()
    library.add_entry(write_model(library.models_dir / "a.sda", "id-of-a", "Evening light", has_analysis=True))
    library.repair_index()
    library.index_path.write_bytes(before)
    for again in (library, ModelLibrary(library.models_dir)):
        again.repair_index()
        found = again.get("id-of-a")
        assert found is not None
        assert (found.name, found.has_analysis) == ("Evening light", True)
    assert settled(library)


def test_facts_are_the_file_s(library: ModelLibrary) -> None:
    """Also where the index claims sliders that the file has not, and that was not noticed before."""
    text = library.index_path.read_text().replace('"has_analysis": false', '"has_analysis": true')
    library.index_path.write_text(text)
    for name in "abc":
        os.utime(library.models_dir / f"{name}.sda", ns=(1, 2))
    library.repair_index()
    assert [entry.has_analysis for entry in library.entries()] == [False] * 3


def test_a_name_that_an_entry_lacks_is_the_file_s(library: ModelLibrary) -> None:
    """It is no word that a person has given."""
    data = json.loads(library.index_path.read_bytes())
    del data["models"]["id-of-a"]["name"]
    library.index_path.write_text(json.dumps(data))
    os.utime(library.models_dir / "a.sda", ns=(1, 2))
    library.repair_index()
    assert {entry.name for entry in library.entries()} == {"a", "b", "c"}


def test_rounded_losses_tell_of_no_other_training(library: ModelLibrary) -> None:
    """Nor do dates that are written in another way: the words of the index stay."""
    facts: dict[str, Any] = {"final_val_loss": 0.123456789, "save_date": "2026-01-02T03:04:05"}
    library.add_entry(write_model(library.models_dir / "a.sda", "id-of-a", **facts))
    text = library.index_path.read_text().replace("0.123456789", "0.1235")
    library.index_path.write_text(text.replace("2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00"))
    in_index_only(library)
    (library.models_dir / ".model_library.scan.json").unlink()
    library = ModelLibrary(library.models_dir)
    os.utime(library.models_dir / "a.sda")
    library.repair_index()
    assert in_words(library, "a.sda") == WORDS


def test_a_copy_whose_usual_id_is_taken(library: ModelLibrary) -> None:
    """It gets the next one: a repair ends."""
    shutil.copy2(library.models_dir / "a.sda", library.models_dir / "0.sda")
    library.repair_index()
    (library.models_dir / "0.sda").rename(library.models_dir / "other.sda")
    library.repair_index()
    assert state(library)["other.sda"] == copy_id("id-of-a", "0.sda")
    shutil.copy2(library.models_dir / "a.sda", library.models_dir / "0.sda")
    assert library.repair_index() == (0, 1)
    assert state(library)["0.sda"] == copy_id(copy_id("id-of-a", "0.sda"), "0.sda")
    assert library.plan_repair().findings == ()
    assert ModelLibrary(library.models_dir).repair_index() == (0, 0)


@pytest.mark.parametrize("raw", ["[1e400, 2, 3]", "[1, 2]", "3", "[]"])
def test_numbers_that_no_cache_has(raw: str, library: ModelLibrary) -> None:
    """As good as none."""
    (library.models_dir / ".model_library.scan.json").write_text(f'{{"version": 2, "files": {{"a.sda": {raw}}}}}')
    assert state(ModelLibrary(library.models_dir)) == START
