"""b31: what other programs have in the index stays as it is, byte for byte, whatever is done to the library."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.errors import ForeignEntryError, NewerIndexError
from sda_daemon.library import ModelLibrary, trash
from sda_daemon.library.content import ForeignKind, parse_index
from sda_daemon.library.editing import MetadataChange, edit_model
from sda_daemon.library.entry import ENTRY_FIELDS
from sda_daemon.library.findings import FindingKind
from sda_daemon.library.kept import KEPT_FILE_NAME
from sda_daemon.library.repair import copy_id
from sda_daemon.models import ModelMetadata, delete_model, save_model_from_checkpoint
from sda_daemon.models.formats import DISTILLGAN, FORMATS, SDA, ModelFormat
from tests.library.application import Application
from tests.library.model_files import entry, write_model

OTHERS = {name: value for name, value in entry(1).to_dict().items() if name not in ("model_id", "file_path")}
SIXTEEN = ", ".join(f'"{name}": {json.dumps(value)}' for name, value in OTHERS.items())
ENTRIES = {
    "another ending": f'"vq1": {{"model_id": "vq1", "file_path": "rain.vqvae", {SIXTEEN}}}',
    "no ending": '"plain" :{"file_path":"README","size":1.50e0,"x":1e400,"y":[NaN,-Infinity,-0.0,1000000000000001]}',
    "a folder": '"folder": {"model_id": "folder", "file_path": "subfolder", "é": "\\u00e9", "deep": {"b": 1, "a": 2}}',
    "a hidden file": '"hidden": {"model_id": "hidden", "file_path": ".rain.sda"}',
    "no object": '"list": [1.0, 1e5, {"a": 1, "a": 2}]',
    "null": '"null":null',
    "no file name": '"nameless": {"model_id": "nameless", "file_path": null}',
    "an empty file name": '"empty": {"model_id": "empty", "file_path": ""}',
    "wrong types": '"types": {"model_id": "types", "file_path": "types.sda", "tags": "rain", "training_epochs": "1/4"}',
    "another id": '"key": {"model_id": "another", "file_path": "another.sda"}',
    "outside": '"evil": {"model_id": "evil", "file_path": "../../etc/passwd"}',
    "absolute": '"abs": {"model_id": "abs", "file_path": "/etc/passwd"}',
    "a future field outside": '"sub": {"model_id": "sub", "file_path": "sub/rain.sda", "parts": [1.0]}',
    "a key with signs": '"\\u0022\\ud83d quoted {": {"file_path": "x.gguf"}',
    "on several lines": '"lines": {\n      "file_path": "x.onnx",\n\t  "z": 1,\r\n      "a": [\n]\n    }',
    "the same key twice": '"twice": {"file_path": "a.onnx"},\n"twice": {"file_path": "b.onnx", "n": 1.0}',
}
KINDS = {
    "outside": ForeignKind.OUTSIDE, "absolute": ForeignKind.OUTSIDE, "a future field outside": ForeignKind.OUTSIDE,
    "no object": ForeignKind.UNUSABLE, "null": ForeignKind.UNUSABLE, "no file name": ForeignKind.UNUSABLE,
    "an empty file name": ForeignKind.UNUSABLE, "wrong types": ForeignKind.UNUSABLE, "another id": ForeignKind.UNUSABLE,
}  # fmt: skip
TOP = '"theme": {"dark":true, "size": 1.0}'
FIELDS = '"rating":5.0, "colour": {"r": 1e400, "r": 0x}'.replace("0x", "1.0")


def index_of(folder: Path) -> Path:
    return folder / "model_library.json"


def put_in(folder: Path, *members: str, top: str = "", version: int = 1) -> None:
    """Write entries into an index as they are, before, between and behind those that are there."""
    data = json.loads(index_of(folder).read_bytes())
    ours = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in data["models"].items()]
    mixed = [*members[: len(members) // 2], *ours[:1], *members[len(members) // 2 :], *ours[1:]]
    text = f'{{\n  "version": {version},\n' + (f"  {top},\n" if top else "")
    index_of(folder).write_bytes((text + '  "models": {\n' + ",\n    ".join(mixed) + "\n  }\n}").encode())


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """A library of two models, a and b."""
    library = ModelLibrary(tmp_path / "models")
    library.add_entries([write_model(library.models_dir / f"{name}.sda") for name in "ab"])
    assert library.repair_index() == (0, 0)
    return library


def text_of(library: ModelLibrary) -> str:
    return index_of(library.models_dir).read_bytes().decode()


def assert_kept(library: ModelLibrary, members: list[str], top: str = TOP) -> None:
    """Every member stands in the index as it stood, in the order in which they stood."""
    text = text_of(library)
    places = [text.find(member) for member in members]
    assert -1 not in places, members[places.index(-1)]
    assert places == sorted(places)
    assert top in text
    json.loads(text)


# --- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ENTRIES)
def test_b31_each_is_told_apart_and_not_shown(what: str, library: ModelLibrary) -> None:
    """It is listed as what it is, and in no way a model."""
    put_in(library.models_dir, ENTRIES[what])
    library.refresh()
    assert {item.file_path for item in library.list_all()} == {"a.sda", "b.sda"}
    assert (library.count(), library.search("rain")) == (2, [])
    found = library.foreign()
    assert {item.kind for item in found} == {KINDS.get(what, ForeignKind.OTHER)}
    assert ",\n".join(item.text for item in found) == ENTRIES[what]
    assert all(item.reason for item in found)
    assert [library.get(item.key) for item in found] == [None] * len(found)


def test_b31_a_key_that_is_there_twice(tmp_path: Path) -> None:
    """The last one counts, as for every reader."""
    usual = json.dumps(entry(1).to_dict())
    later = json.dumps(entry(1, name="Later").to_dict())
    foreign = '{"file_path": "x.onnx"}'
    for members, expected in (
        ([usual, later], ["Later"]),
        ([foreign, later], ["Later"]),
        ([later, foreign], []),
    ):
        text = ", ".join(f'"id00001": {member}' for member in members)
        content = parse_index(f'{{"version": 1, "models": {{{text}}}}}'.encode())
        assert [item.name for item in content.entries.values()] == expected
        assert len(content.foreign) == (not expected)
        assert len(content.order) == 1
    content = parse_index(b'{"models": 5, "version": 9, "models": {}, "x": 1, "x": 2, "version": 2}')
    assert (content.version, [text for _, text in content.top]) == (2, ["", "", '"x": 1', '"x": 2'])
    assert json.loads(b"".join(content.encoded())) == {"version": 2, "models": {}, "x": 2}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
def test_b31_an_index_in_another_encoding(encoding: str, library: ModelLibrary) -> None:
    """Python's json reads it, so it is read here, and what is foreign in it is kept as text."""
    put_in(library.models_dir, *ENTRIES.values(), top=TOP)
    text = text_of(library)
    index_of(library.models_dir).write_bytes(text.encode(encoding))
    library.add_entry(write_model(library.models_dir / "c.sda"))
    assert_kept(library, list(ENTRIES.values()))


# --- every writer -----------------------------------------------------------------------------------


def nothing(_library: ModelLibrary) -> None:
    pass


def add(library: ModelLibrary) -> None:
    library.add_entry(write_model(library.models_dir / "c.sda"))


def add_and_remove(library: ModelLibrary) -> None:
    add(library)
    assert library.remove("id-of-c")
    assert library.remove("id-of-a")


def repair(library: ModelLibrary) -> None:
    (library.models_dir / "a.sda").unlink()
    write_model(library.models_dir / "d.sda")
    write_model(library.models_dir / "b.sda", "id-of-b", "changed")
    assert library.repair_index() == (1, 1)


def repair_by_a_plan(library: ModelLibrary) -> None:
    (library.models_dir / "a.sda").unlink()
    library.apply_repair(library.plan_repair().without([FindingKind.OUTSIDE]))


def recover(library: ModelLibrary) -> None:
    add(library)
    index_of(library.models_dir).write_bytes(b'{"version": 1, "mod')
    assert ModelLibrary(library.models_dir).count() == 3


def recover_without_a_backup(library: ModelLibrary) -> None:
    add(library)
    for name in ("model_library.json", "model_library.json.bak"):
        (library.models_dir / name).write_bytes(b"{")
    ModelLibrary(library.models_dir).repair_index()


def delete_the_index(library: ModelLibrary) -> None:
    add(library)
    index_of(library.models_dir).unlink()
    ModelLibrary(library.models_dir).repair_index()


def another_program_in_between(library: ModelLibrary) -> None:
    with library.transaction():
        library.add_entry(write_model(library.models_dir / "c.sda"))
        text = text_of(library)
        index_of(library.models_dir).write_text(text.replace('"name": "b"', '"name": "renamed by them"', 1))
    assert library.get("id-of-c") is not None


def trash_and_restore(library: ModelLibrary) -> None:
    first = library.get("id-of-a")
    assert first is not None
    trash.discard(library, [first])
    trash.restore(library, trash.list_trash(library.models_dir))


def delete(library: ModelLibrary) -> None:
    assert delete_model("id-of-a", library.models_dir)


def fail(library: ModelLibrary) -> None:
    with contextlib.suppress(KeyError), library.transaction():
        library.remove_many(["id-of-a", "id-of-b"])
        raise KeyError
    add(library)


WRITERS: dict[str, Callable[[ModelLibrary], None]] = {
    function.__name__: function
    for function in (
        nothing, add, add_and_remove, repair, repair_by_a_plan, recover, recover_without_a_backup, delete_the_index,
        another_program_in_between, trash_and_restore, delete, fail,
    )
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_b31_all_stay_whoever_writes(writer: str, library: ModelLibrary) -> None:
    """In their place, spelled as they were, in an open library and in one that is opened anew."""
    in_place = writer not in ("recover_without_a_backup", "delete_the_index")
    members = list(ENTRIES.values())
    put_in(library.models_dir, *members, top=TOP)
    (library.models_dir / "subfolder").mkdir()
    library.repair_index()
    assert_kept(library, members)
    WRITERS[writer](library)
    for again in (library, ModelLibrary(library.models_dir)):
        again.repair_index()
        add(again)
        if in_place:
            assert_kept(library, members)
        assert all(member in text_of(library) for member in members)
        assert again.plan_repair().without([FindingKind.OUTSIDE]).findings == ()
    assert (library.models_dir / "subfolder").is_dir()


@pytest.mark.parametrize("version", [1, 2])
def test_b31_saving_and_editing_keep_them(
    version: int, library: ModelLibrary, small_checkpoints: Callable[..., Path]
) -> None:
    """The API that the application and scripts call."""
    members = list(ENTRIES.values())
    put_in(library.models_dir, *members, top=TOP, version=version)
    metadata = ModelMetadata(name="Saved")
    save_model_from_checkpoint(small_checkpoints(0), metadata, library.models_dir)
    assert_kept(library, members)
    library.refresh()
    edit_model(library, metadata.model_id, MetadataChange(name="Edited"))
    assert_kept(library, members)
    assert f'"version": {version},' in text_of(library)
    assert library.index_version == version


def test_b31_only_a_person_removes_what_points_outside(library: ModelLibrary) -> None:
    """By a plan that names it; what else is foreign stays even then."""
    members = list(ENTRIES.values())
    put_in(library.models_dir, *members, top=TOP)
    library.refresh()
    plan = library.plan_repair()
    assert {finding.kind for finding in plan.findings} == {FindingKind.OUTSIDE}
    assert [item.text for item in plan.foreign] == [item.text for item in library.foreign() if item.kind != "outside"]
    done = library.apply_repair(plan)
    assert sorted(finding.old_id for finding in done) == ["abs", "evil", "sub"]
    assert_kept(library, [text for what, text in ENTRIES.items() if KINDS.get(what) is not ForeignKind.OUTSIDE])
    assert "passwd" not in text_of(library)
    Application(library.models_dir, SDA).write()
    library.repair_index()
    assert "passwd" not in text_of(library), "what a person had removed does not come back"


# --- further fields ---------------------------------------------------------------------------------


def with_fields(library: ModelLibrary, model_id: str = "id-of-a") -> str:
    """Give an entry fields that this version does not know; return its member as it stands."""
    library.refresh()
    values = json.dumps(json.loads(index_of(library.models_dir).read_bytes())["models"][model_id])
    member = f'"{model_id}":  {{ {FIELDS}, {values[1:]}'
    data = json.loads(index_of(library.models_dir).read_bytes())
    others = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in data["models"].items() if key != model_id]
    text = ",\n".join([member, *others])
    index_of(library.models_dir).write_text(f'{{"version": 1, {TOP}, "models": {{{text}}}}}')
    return member


def test_b31_an_entry_with_further_fields_stays_as_it_stands(library: ModelLibrary) -> None:
    """As long as nothing of the model changes; then its 16 fields change, and the others stay as they stand."""
    member = with_fields(library)
    add(library)
    assert member in text_of(library)
    first = library.get("id-of-a")
    assert first is not None
    library.add_entry(dataclasses.replace(first, description="edited"))
    assert member not in text_of(library)
    assert FIELDS in text_of(library)
    write_model(library.models_dir / "a.sda", "id-of-a", "changed")
    library.repair_index()
    (library.models_dir / "a.sda").rename(library.models_dir / "moved.sda")
    library.repair_index()
    assert FIELDS in text_of(library)
    values = json.loads(text_of(library))["models"]["id-of-a"]
    assert (values["file_path"], values["name"], values["rating"]) == ("moved.sda", "changed", 5.0)
    assert tuple(values)[:16] == ENTRY_FIELDS


def test_b31_further_fields_go_into_the_trash_and_come_back(library: ModelLibrary) -> None:
    """They belong to the model."""
    with_fields(library)
    first = library.get("id-of-a") or pytest.fail("there is no such entry")
    library.refresh()
    trash.discard(library, [first])
    assert FIELDS not in text_of(library)
    ModelLibrary(library.models_dir).repair_index()
    trash.restore(ModelLibrary(library.models_dir), trash.list_trash(library.models_dir))
    assert FIELDS in text_of(library)


def test_b31_a_deleted_model_takes_its_fields_along(library: ModelLibrary) -> None:
    """Another one under the same id begins with none."""
    with_fields(library)
    assert library.remove("id-of-a")
    library.repair_index()
    assert FIELDS not in text_of(library)


def test_b31_an_entry_that_lacks_fields_is_completed(library: ModelLibrary) -> None:
    """The application would skip it; what else it has is kept as it stands."""
    put_in(library.models_dir)
    text = text_of(library)
    index_of(library.models_dir).write_text(
        text.replace('"models": {', f'"models": {{"few": {{"file_path": "few.sda", {FIELDS}}},')
    )
    library.add_entry(write_model(library.models_dir / "few.sda", "other"))
    values = json.loads(text_of(library))["models"]["few"]
    assert set(values) == {*ENTRY_FIELDS, "rating", "colour"}
    assert FIELDS in text_of(library)


# --- version 2 --------------------------------------------------------------------------------------

VOCODER = '{"type": "hifigan_v2", "epochs": 40, "final_loss": 2.50, "training_date": "2026-02-03"}'


def test_b31_an_index_of_version_2_stays_one(library: ModelLibrary) -> None:
    """New entries have a 17th field; one that lacks it, has null or something in it keeps that."""
    ids = [f"id-of-{name}" for name in ("missing", "null", "trained", "new")]
    for name in ("missing", "null", "trained"):
        write_model(library.models_dir / f"{name}.distillgan")
    library.repair_index()
    data = json.loads(text_of(library))
    members = []
    for model_id, more in zip(ids, ("", ', "vocoder":null', f', "vocoder": {VOCODER}, "next": 1.0'), strict=False):
        members.append(f'"{model_id}": {json.dumps(data["models"][model_id])[:-1]}{more}}}')
    index_of(library.models_dir).write_text(f'{{"version": 2, "models": {{{", ".join(members)}}}}}')
    library.refresh()
    assert library.count() == 3
    assert library.foreign() == []
    library.add_entry(write_model(library.models_dir / "new.sda"))
    models = json.loads(text_of(library))["models"]
    assert [tuple(models[model_id])[16:] for model_id in ids] == [
        (), ("vocoder",), ("vocoder", "next"), ("vocoder",),
    ]  # fmt: skip
    assert (models["id-of-null"]["vocoder"], models["id-of-new"]["vocoder"]) == (None, None)
    assert f'"vocoder": {VOCODER}, "next": 1.0' in text_of(library)
    for name in ("missing", "null", "trained"):
        write_model(library.models_dir / f"{name}.distillgan", name=f"{name} changed")
    assert library.repair_index() == (0, 2)  # a and b
    changed = json.loads(text_of(library))["models"]
    assert [tuple(changed[model_id])[16:] for model_id in ids] == [tuple(models[model_id])[16:] for model_id in ids]
    assert f'"vocoder": {VOCODER}, "next": 1.0' in text_of(library)
    assert json.loads(text_of(library))["version"] == 2


def test_b31_a_version_above_2_is_refused(library: ModelLibrary) -> None:
    """And left as it is."""
    raw = text_of(library).replace('"version": 1', '"version": 3')
    index_of(library.models_dir).write_text(raw)
    with pytest.raises(NewerIndexError, match="version 3, newer than supported version 2"):
        ModelLibrary(library.models_dir)
    with pytest.raises(NewerIndexError):
        library.repair_index()
    assert text_of(library) == raw


def test_b32_a_vocoder_in_an_adopted_file_is_in_the_index(library: ModelLibrary) -> None:
    """Of version 2, as the application writes it; in one of version 1 an entry has 16 fields."""
    from tests.library.model_files import write_payload

    trained = {"epochs": 40, "final_loss": 0.25, "training_date": "2026-02-03T04:05:06+00:00"}
    payload = {"format": "distillgan_model", "version": 1, "metadata": ModelMetadata("new", "new").to_dict()}
    state = {"type": "hifigan_v2", "training_metadata": trained}
    write_payload(library.models_dir / "new.distillgan", payload)
    library.repair_index()
    index_of(library.models_dir).write_text(text_of(library).replace('"version": 1', '"version": 2'))
    library.remove("new")
    library.repair_index()
    assert json.loads(text_of(library))["models"]["new"]["vocoder"] is None
    write_payload(library.models_dir / "new.distillgan", {**payload, "vocoder_state": state})  # trained into the file
    library.repair_index()
    assert json.loads(text_of(library))["models"]["new"]["vocoder"] == {"type": "hifigan_v2", **trained}
    first = ModelLibrary(library.models_dir.with_name("first"))
    shutil.copy(library.models_dir / "new.distillgan", first.models_dir)
    first.repair_index()
    assert tuple(json.loads(text_of(first))["models"]["new"]) == ENTRY_FIELDS


# --- ids and files that are taken -------------------------------------------------------------------


def test_b31_nothing_is_written_over_a_foreign_entry(library: ModelLibrary) -> None:
    """Not under its id, nor does a model whose file it names get another entry."""
    member = '"id-of-c": {"model_id": "id-of-c", "file_path": "d.sda", "training_epochs": "all"}'
    put_in(library.models_dir, member)
    library.refresh()
    with pytest.raises(ForeignEntryError, match="id-of-c"):
        library.add_entry(write_model(library.models_dir / "c.sda"))
    write_model(library.models_dir / "d.sda")
    assert library.repair_index() == (0, 1)
    assert {item.file_path: item.model_id for item in library.list_all()} == {
        "a.sda": "id-of-a", "b.sda": "id-of-b", "c.sda": copy_id("id-of-c", "c.sda"),
    }  # fmt: skip
    assert member in text_of(library)
    assert library.plan_repair().findings == ()
    assert library.repair_index() == (0, 0)


# --- told once --------------------------------------------------------------------------------------


def test_b31_each_is_told_of_once(library: ModelLibrary, caplog: pytest.LogCaptureFixture) -> None:
    """By whatever is done to the library, and however often the index is read again."""
    caplog.set_level("INFO", "sda_daemon")
    put_in(library.models_dir, *ENTRIES.values(), top=TOP)
    for _ in range(3):
        library.repair_index()
        index_of(library.models_dir).write_bytes(index_of(library.models_dir).read_bytes())
    told = [record.getMessage().split()[0] for record in caplog.records if "library.entry_" in record.getMessage()]
    unusable = sum(KINDS.get(what) is ForeignKind.UNUSABLE for what in ENTRIES)
    assert told.count("library.entry_invalid") == unusable
    assert told.count("library.entry_foreign") == len(ENTRIES) + 1 - unusable  # one key is there twice


# --- what other programs leave out ------------------------------------------------------------------


def test_b31_what_a_generation_leaves_out_is_put_back(library: ModelLibrary) -> None:
    """By whoever changes something next, also by a process that has never seen it."""
    with_fields(library)
    text = text_of(library).replace('"models": {', '"models": {' + ",\n".join(ENTRIES.values()) + ",")
    index_of(library.models_dir).write_text(text)
    library.repair_index()
    for generation in FORMATS:
        Application(library.models_dir, generation).write()
        models = json.loads(text_of(library))["models"]
        assert "theme" not in text_of(library)
        assert set(models) == {"id-of-b", "vq1"}
        again = ModelLibrary(library.models_dir)
        plan = again.plan_repair()
        assert plan.changes_index
        assert "key theme" in plan.put_back
        assert [what for what in plan.put_back if "rain.vqvae" in what] == []
        again.repair_index()
        assert all(text in text_of(library) for what, text in ENTRIES.items() if what != "another ending")
        assert TOP in text_of(library)
        assert FIELDS in text_of(library), "the model's entry came back from its file, and its fields with it"
        assert again.plan_repair().put_back == ()


LAYOUTS: dict[str, dict[str, Any]] = {
    "indented": {"indent": 2},
    "indented by nothing": {"indent": 0},
    "with tabs": {"indent": "\t"},
    "one line": {},
    "no spaces": {"separators": (",", ":")},
}


@pytest.mark.parametrize("newline", ["", "\n"], ids=["", "with a newline at the end"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_b31_what_is_left_out_is_put_back_whatever_the_layout(
    library: ModelLibrary, layout: dict[str, Any], newline: str
) -> None:
    """Only what stands as this program writes it is this program's: there, what is missing is meant to be."""
    text = text_of(library).replace('"models": {', '"models": {' + ENTRIES["another ending"] + ",\n")
    index_of(library.models_dir).write_text(text)
    library.repair_index()
    theirs = json.loads(text_of(library))
    del theirs["models"]["vq1"]
    index_of(library.models_dir).write_text(json.dumps(theirs, **layout) + newline)
    (library.models_dir / "rain.vqvae").write_bytes(b"VQ")
    plan = ModelLibrary(library.models_dir).plan_repair()
    assert [what for what in plan.put_back if "vq1" in what]


def test_b31_what_stands_as_written_here_was_taken_out_on_purpose(library: ModelLibrary) -> None:
    """Also where a foreign entry of several lines comes first, or none is left."""
    text = text_of(library).replace(
        '"models": {', '"models": {"vq2": {\n"file_path": "a.vqvae"},' + ENTRIES["another ending"] + ","
    )
    index_of(library.models_dir).write_text(text)
    for name in ("a.vqvae", "rain.vqvae"):
        (library.models_dir / name).write_bytes(b"VQ")
    library.add_entry(write_model(library.models_dir / "c.sda"))
    before = text_of(library)
    assert ENTRIES["another ending"] in before
    index_of(library.models_dir).write_text(before.replace(ENTRIES["another ending"] + ",\n", ""))
    assert ModelLibrary(library.models_dir).plan_repair().put_back == ()


def test_b31_in_the_middle_of_a_change(library: ModelLibrary) -> None:
    """A generation that writes while a transaction is open takes nothing away."""
    put_in(library.models_dir, *ENTRIES.values(), top=TOP)
    application = Application(library.models_dir, SDA)
    library.refresh()
    with library.transaction():
        library.add_entry(write_model(library.models_dir / "c.sda"))
        application.write()
    text = text_of(library)
    assert all(member in text for what, member in ENTRIES.items() if what != "another ending")
    assert TOP in text
    assert {"id-of-a", "id-of-b", "id-of-c", "vq1"} <= set(json.loads(text)["models"])


def test_b31_what_was_deleted_with_its_file_stays_deleted(library: ModelLibrary) -> None:
    """The program that it belongs to has deleted it."""
    member = ENTRIES["another ending"].replace('"model_id"', '"codebook": 512, "model_id"')
    put_in(library.models_dir, member)
    (library.models_dir / "rain.vqvae").write_bytes(b"theirs")
    library.repair_index()
    (library.models_dir / "rain.vqvae").unlink()
    library.repair_index()
    assert member in text_of(library), "it is not for us to remove it"
    Application(library.models_dir, SDA).write()
    library.repair_index()
    assert "vq1" not in text_of(library)
    assert not (library.models_dir / KEPT_FILE_NAME).exists()


def test_b31_what_a_person_takes_out_by_hand_stays_out(library: ModelLibrary) -> None:
    """With an editor, in an index that stands the way this program writes it."""
    put_in(library.models_dir, *ENTRIES.values(), top=TOP)
    add(library)
    text = text_of(library)
    for member in (TOP, ENTRIES["no ending"]):
        assert f"{member},\n" in text
        text = text.replace(f"{member},\n", "")
    index_of(library.models_dir).write_text(text)
    library.repair_index()
    add(library)
    Application(library.models_dir, DISTILLGAN).write()
    library.repair_index()
    text = text_of(library)
    assert "theme" not in text
    assert "README" not in text
    assert ENTRIES["a folder"] in text


def test_b31_a_damaged_memory_is_as_good_as_none(library: ModelLibrary) -> None:
    """And puts nothing into the index that is not valid."""
    put_in(library.models_dir, *ENTRIES.values(), top=TOP)
    library.repair_index()
    memory = library.models_dir / KEPT_FILE_NAME
    good = json.loads(memory.read_bytes())
    for bad in (
        "{", "[]", '{"entries": 5}', json.dumps({**good, "keys": {"x": '"x": 1}, "models": {'}}),
        json.dumps({**good, "entries": {"y": {"text": "junk", "file": "", "was_there": False}}}),
    ):  # fmt: skip
        memory.write_text(bad)
        Application(library.models_dir, SDA).write()
        fresh = ModelLibrary(library.models_dir)
        fresh.repair_index()
        add(fresh)
        assert {"a.sda", "b.sda", "c.sda"} == {item.file_path for item in ModelLibrary(library.models_dir).list_all()}
        assert '"x"' not in text_of(library)


@pytest.mark.parametrize("generation", FORMATS, ids=lambda item: item.name)
def test_b31_200_alternating_writes(generation: ModelFormat, tmp_path: Path) -> None:
    """With a generation that knows little and keeps a stale memory: nothing is lost, and all of ours is back."""
    folder = tmp_path / "models"
    library = ModelLibrary(folder)
    (folder / "subfolder").mkdir()
    (folder / "rain.vqvae").write_bytes(b"theirs")
    library.add_entries([write_model(folder / f"{name}.sda") for name in "ab"])
    put_in(folder, *ENTRIES.values(), top=TOP, version=2)
    library.repair_index()
    window = Application(folder, generation)
    expected = {"id-of-a", "id-of-b"}
    for number in range(200):
        name = f"m{number}{FORMATS[number % 3].ending}"
        match number % 5:
            case 0:
                library.add_entry(write_model(folder / name))
            case 1:
                write_model(folder / name)
                ModelLibrary(folder).repair_index()
            case 2:
                write_model(folder / name)  # found by a later repair
                window.write()  # from its stale memory
            case 3:
                write_model(folder / name)
                Application(folder, generation).add(name)
            case _:
                with library.transaction():
                    library.add_entry(write_model(folder / name))
                    if number % 2:
                        window.write()
                    else:
                        window.read()
        expected.add(f"id-of-m{number}")
        if number % 40 == 39:
            library = ModelLibrary(folder)
    Application(folder, generation).write()
    library.repair_index()
    text = text_of(library)
    for what, member in ENTRIES.items():
        if what != "another ending":
            assert member in text, what
    models = json.loads(text)["models"]
    theirs = json.loads(f"{{{ENTRIES['another ending']}}}")["vq1"]
    assert models["vq1"] in (theirs, {**theirs, "vocoder": None})
    assert TOP in text
    assert expected <= set(models)
    assert {item.model_id for item in library.list_all()} == expected
    assert library.plan_repair().without([FindingKind.OUTSIDE]).findings == ()
    assert (folder / "rain.vqvae").read_bytes() == b"theirs"
    shutil.rmtree(folder / "subfolder")
