"""An index, a folder and files in which single things are wrong: these alone are affected."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.errors import BrokenModelError, ForeignEntryError, NewerIndexError
from sda_daemon.library import ModelEntry, ModelLibrary, trash
from sda_daemon.library.content import ForeignKind
from sda_daemon.library.entry import is_bare_model_name
from sda_daemon.library.repair import FindingKind, plan_repair
from sda_daemon.library.scan import UNSEEN, scan_models
from sda_daemon.models.formats import DISTILLGAN
from sda_daemon.models.header import read_model_header
from sda_daemon.models.header_process import read_header_apart
from sda_daemon.signature import FileSignature
from tests.library.application import Application
from tests.library.model_files import entry, write_model, write_payload

DIGITS = "7" * 5000


def write_index(folder: Path, text: str | bytes) -> Path:
    """Write an index as another program would."""
    path = folder / "model_library.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_number_without_end_spoils_its_entry_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Python refuses to read 5,000 digits: that entry is left out, and nothing is set aside as broken."""
    models = {e.model_id: e.to_dict() for e in (entry(0), entry(1), entry(2))}
    text = json.dumps({"version": 1, "models": models}).replace(
        '"training_epochs": 0', f'"training_epochs": {DIGITS}', 1
    )
    write_index(tmp_path, text)
    library = ModelLibrary(tmp_path)
    assert {e.model_id for e in library.list_all()} == {"id00001", "id00002"}
    assert list(tmp_path.glob("*.broken-*")) == []
    assert "training_epochs must be a number, not '7777" in caplog.text


def test_foreign_numbers_without_end_stay(tmp_path: Path) -> None:
    """In fields and keys of other programs, digit by digit, through every write."""
    values = {**entry(0).to_dict(), "vocoder": {"steps": 1, "text": "x"}}
    text = json.dumps({"version": 1, "theirs": [1], "models": {"id00000": values}})
    text = text.replace('"steps": 1', f'"steps": -{DIGITS}').replace(
        '"theirs": [1]', f'"theirs": [{DIGITS}, "{DIGITS}x"]'
    )
    path = write_index(tmp_path, text)
    library = ModelLibrary(tmp_path)
    library.add_entry(entry(1))
    library.add_entry(dataclasses.replace(entry(0), name="renamed"))
    written = path.read_text()
    assert f'"steps": -{DIGITS}' in written
    assert f'"theirs": [{DIGITS}, "{DIGITS}x"]' in written
    assert {e.name for e in ModelLibrary(tmp_path).list_all()} == {"renamed", "Model 1"}


def test_bytes_that_are_not_utf8_spoil_their_entry_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Edited by hand in another encoding: the entry is not shown, and stays as it is until somebody mends it."""
    entries = [write_model(tmp_path / f"{name}.sda", f"id-{name}", name) for name in ("a", "b")]
    models = {e.model_id: e.to_dict() for e in entries}
    raw = json.dumps({"version": 1, "models": models}).encode().replace(b'"name": "a"', b'"name": "\xe4"')
    write_index(tmp_path, raw)
    library = ModelLibrary(tmp_path)
    assert [e.name for e in library.list_all()] == ["b"]
    assert "name holds bytes that are not UTF-8: '\\\\udce4'" in caplog.text
    assert list(tmp_path.glob("*.broken-*")) == []
    assert library.repair_index() == (0, 0)
    assert library.remove("id-b")
    assert b'"name": "\xe4"' in library.index_path.read_bytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 5),
        ("tags", "rain"),
        ("tags", [1]),
        ("tags", None),
        ("training_epochs", "7"),
        pytest.param("final_val_loss", 10**5000, id="endless"),
        ("has_analysis", {"a": 1}),
        ("has_analysis", "yes"),
        ("save_date", 2026),
        ("file_size_bytes", [1]),
    ],
)
def test_what_no_index_holds_is_not_added(field: str, value: Any, tmp_path: Path) -> None:
    """Said at once, with field and value, and not when everybody's index is to be written."""
    library = ModelLibrary(tmp_path)
    library.add_entry(entry(1))
    with pytest.raises(ValueError, match=field):
        library.add_entry(dataclasses.replace(entry(2), **{field: value}))
    library.add_entry(entry(3))
    assert ModelLibrary(tmp_path).count() == 2


@pytest.mark.parametrize("value", [{"a": 1}, [], "yes"])
def test_a_flag_of_another_kind(value: Any, tmp_path: Path) -> None:
    """`has_analysis` is true or false: an entry that says otherwise is left out, alone."""
    models = {e.model_id: e.to_dict() for e in (entry(0), entry(1))}
    models["id00000"]["has_analysis"] = value
    write_index(tmp_path, json.dumps({"version": 1, "models": models}))
    assert [e.model_id for e in ModelLibrary(tmp_path).list_all()] == ["id00001"]


def test_entries_without_tags_do_not_share_them(tmp_path: Path) -> None:
    """Two entries without the field: a tag of one is not a tag of the other."""
    models = {e.model_id: {k: v for k, v in e.to_dict().items() if k != "tags"} for e in (entry(0), entry(1))}
    write_index(tmp_path, json.dumps({"version": 1, "models": models}))
    first, second = ModelLibrary(tmp_path).list_all("model_id", reverse=False)
    first.tags.append("x")
    assert second.tags == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.sda", True),
        ("ü" * 125 + ".sda", True),
        ("\udcff.sda", True),
        ("\ud800.sda", False),
        ("a\0.sda", False),
        ("x" * 252 + ".sda", True),  # on some file systems
        ("ü" * 10_000 + ".sda", True),
    ],
)
def test_names_that_files_can_have(name: str, expected: bool, tmp_path: Path) -> None:
    """Those that the system takes for a name; an entry with any other leads nowhere, and no name stops a repair."""
    assert is_bare_model_name(name) is expected
    try:
        (tmp_path / name).lstat()
    except OSError:
        assert expected
    except ValueError:
        assert not expected
    library = ModelLibrary(tmp_path / "models")
    models = {"x": {**entry(0).to_dict(), "model_id": "x", "file_path": name}, "id00001": entry(1).to_dict()}
    write_index(tmp_path / "models", json.dumps({"version": 1, "models": models}))
    library.refresh()
    assert not library.holds("x")
    kinds = {finding.kind for finding in library.plan_repair().findings}
    assert kinds == ({FindingKind.MISSING} if "\0" not in name else {FindingKind.MISSING, FindingKind.OUTSIDE})
    entry_of_x = library.get("x")
    assert (entry_of_x is not None) is expected  # what no file can be called is an entry of something else
    if entry_of_x is not None:
        assert trash.discard(library, [entry_of_x]) == []
    assert (library.count(), library.repair_index()) == (1, (1, 0))


def test_a_broken_index_beside_a_copy_that_cannot_be_read(tmp_path: Path) -> None:
    """An earlier broken one is a folder now: the new one is kept, and the backup is taken."""
    library = ModelLibrary(tmp_path)
    library.add_entry(write_model(tmp_path / "a.sda"))
    (tmp_path / "model_library.json.broken-1").mkdir()
    (tmp_path / "model_library.json.broken-2").symlink_to(tmp_path / "nowhere")
    write_index(tmp_path, "{")
    assert [e.file_path for e in ModelLibrary(tmp_path).list_all()] == ["a.sda"]
    assert [p.read_text() for p in tmp_path.glob("*.broken-*Z")] == ["{"]


def test_a_file_that_the_system_tells_nothing_of(tmp_path: Path) -> None:
    """A file whose size and date cannot be asked for is there all the same: its entry stays, and it is told."""
    known = write_model(tmp_path / "a.sda")

    def read(_path: Path) -> Any:
        raise OSError(5, "Input/output error")

    plan = plan_repair(tmp_path, {known.model_id: known}, {"a.sda": UNSEEN}, {}, read_header=read)
    assert [(f.kind, f.reason) for f in plan.findings] == [(FindingKind.INVALID, "Input/output error")]
    again = plan_repair(tmp_path, {known.model_id: known}, {"a.sda": UNSEEN}, plan.known, read_header=read)
    assert again.findings == (), "told once"
    plan = plan_repair(tmp_path, {known.model_id: known}, scan_models(tmp_path), again.known)
    assert plan.findings == (), "and when it can be read again, all is well"


ODD_PAYLOADS: dict[str, dict[str, Any]] = {
    "version": {"version": 10**5000},
    "an infinite count": {"metadata": {"training_epochs": float("inf")}},
    "a text for a number": {"metadata": {"final_val_loss": "low"}},
    "an endless name": {"metadata": {"name": "x" * 10**6}},
    "a list for a name": {"metadata": {"name": ["x"]}},
}


@pytest.mark.parametrize("name", ODD_PAYLOADS)
def test_a_file_with_odd_metadata_is_named_and_left_alone(name: str, tmp_path: Path) -> None:
    """It is one finding; the files beside it are adopted, and the message is short."""
    good = [write_model(tmp_path / f"{stem}.sda") for stem in ("a", "z")]
    values = {"format": "sda_model", "version": 1, **ODD_PAYLOADS[name]}
    values["metadata"] = {**good[0].metadata().to_dict(), "model_id": "odd", **ODD_PAYLOADS[name].get("metadata", {})}
    write_payload(tmp_path / "m.sda", values)
    library = ModelLibrary(tmp_path)
    plan = library.plan_repair()
    (invalid,) = plan.of(FindingKind.INVALID)
    assert invalid.file == "m.sda"
    assert len(invalid.reason) < 1000
    assert library.repair_index() == (0, 2)


def test_a_large_header_with_numbers_without_end_is_adopted(tmp_path: Path) -> None:
    """It is read in a process of its own, which must not fail to say what it has found."""
    metadata = entry(0, model_id="large").metadata().to_dict()
    provenance = {"tool": "other", "count": 10**5000, "list": [{"deep": -(10**5000)}], "padding": "x" * 400_000}
    payload = {"format": "sda_model", "version": 1, "metadata": metadata, "provenance": provenance}
    write_payload(tmp_path / "large.sda", {**payload, "latent_dim": 10**5000})
    header = read_header_apart(tmp_path / "large.sda")
    assert (header.metadata.model_id, header.latent_dim) == ("large", 0)
    assert header.provenance["tool"] == "other"
    assert "count" not in header.provenance
    assert ModelLibrary(tmp_path).repair_index() == (0, 1)


def test_whatever_a_reader_meets_is_told_as_damage(tmp_path: Path) -> None:
    """No other exception leaves it: neither for keys of 5,000 digits nor for a name that no file can have."""
    for name in ("a\0b.sda", "\ud800.sda"):
        with pytest.raises(BrokenModelError, match="damaged, or holds values that no model has"):
            read_model_header(tmp_path / name)


def test_dates_beyond_what_a_ledger_holds(tmp_path: Path) -> None:
    """A file of the year 2400 has a signature of 64 bits, the same in a scan and when it is read."""
    write_model(tmp_path / "a.sda")
    os.utime(tmp_path / "a.sda", (1, 13_569_465_600))
    if (tmp_path / "a.sda").stat().st_mtime_ns < 2**63:
        pytest.skip("this file system knows no such year")
    signature = FileSignature.of((tmp_path / "a.sda").stat())
    assert -(2**63) <= signature.mtime_ns < 2**63
    library = ModelLibrary(tmp_path)
    assert library.repair_index() == (0, 1)
    assert library.plan_repair().findings == ()
    assert ModelLibrary(tmp_path).plan_repair().findings == ()
    reads: list[Path] = []

    def read(path: Path) -> Any:
        reads.append(path)
        return read_model_header(path)

    entries = {e.model_id: e for e in library.list_all()}
    plan_repair(tmp_path, entries, scan_models(tmp_path), library._known, read_header=read)
    assert reads == [], "what is known of it is known by its signature"


def test_entries_are_documents_of_their_own() -> None:
    """An entry that is asked for its metadata gives it whatever is in it."""
    odd = ModelEntry(**{**entry(0).to_dict(), "name": None, "training_epochs": 1.5})
    assert odd.metadata().name is None


def test_leftovers_of_others_do_not_keep_ours(tmp_path: Path) -> None:
    """A folder that is called like a temporary file stays, and what is beside it is swept all the same."""
    ModelLibrary(tmp_path)
    (tmp_path / ".model_library.json.1.tmp").mkdir()
    for number in (0, 2):
        (tmp_path / f".model_library.json.{number}.tmp").write_text("")
    ModelLibrary(tmp_path)
    assert sorted(path.name for path in tmp_path.glob(".*.tmp")) == [".model_library.json.1.tmp"]
    shutil.rmtree(tmp_path / ".model_library.json.1.tmp")


# --- odd versions -----------------------------------------------------------------------------------


def text_with(version: str, tmp_path: Path) -> str:
    """Return an index with this member for its version, with all that one can lose."""
    theirs = {**entry(1, name="Their words").to_dict(), "vocoder": {"type": "x", "epochs": 2}}
    other = '"other": {"file_path": "rain.vqvae", "n": 1.50}'
    known = write_model(tmp_path / "a.sda", "id-a", "In the file")
    mine = json.dumps({**known.to_dict(), "name": "Renamed", "tags": ["x"], "vocoder": None})
    return f'{{{version}"theme": 1.0, "models": {{"id-a": {mine}, "id00001": {json.dumps(theirs)}, {other}}}}}'


EVIDENT = {
    "missing": ("", 2),
    "null": ('"version": null, ', 2),
    "text": ('"version": "2", ', 2),
    "text of one": ('"version": "1", ', 1),
    "text of a fraction": ('"version": " 2.0 ", ', 2),
    "a fraction": ('"version": 2.0, ', 2),
    "an exponent": ('"version": 1e0, ', 1),
    "twice": ('"version": "abc", "version": "2", ', 2),
}


@pytest.mark.parametrize("case", EVIDENT)
def test_a_version_that_is_evident(case: str, tmp_path: Path) -> None:
    """Written by a program that is not careful: it is read as what it is, and nothing is set aside or lost."""
    member, version = EVIDENT[case]
    raw = text_with(member, tmp_path)
    path = write_index(tmp_path, raw)
    os.utime(path, (2**31, 2**31))  # after the file: what it says counts
    before = json.loads(raw)["models"]
    library = ModelLibrary(tmp_path)
    assert library.index_version == version
    assert {e.name for e in library.list_all()} == {"Renamed", "Their words"}
    library.apply_repair(library.plan_repair().without([FindingKind.MISSING]))
    library.add_entry(entry(5, name="New"))
    assert list(tmp_path.glob("*.broken-*")) == []
    after = json.loads(path.read_bytes())
    assert type(after["version"]) is int
    assert after["version"] == version
    assert {key: after["models"][key] for key in ("id-a", "other")} == {key: before[key] for key in ("id-a", "other")}
    assert '"theme": 1.0' in path.read_text()
    assert '"other": {"file_path": "rain.vqvae", "n": 1.50}' in path.read_text()
    assert ("vocoder" in after["models"]["id00005"]) is (version == 2)


def test_no_version_and_no_vocoder(tmp_path: Path) -> None:
    """As the first generation would have written it."""
    write_index(tmp_path, json.dumps({"models": {"id00001": entry(1).to_dict()}, "theme": 1}))
    library = ModelLibrary(tmp_path)
    library.add_entry(entry(2))
    data = json.loads(library.index_path.read_bytes())
    assert (data["version"], data["theme"], set(data["models"])) == (1, 1, {"id00001", "id00002"})


@pytest.mark.parametrize(
    "version",
    [
        '"abc"',
        '""',
        '"-2"',
        "true",
        "false",
        "-1",
        "0",
        "1.5",
        "[2]",
        "{}",
        "NaN",
        "Infinity",
        "-" + "7" * 5000,
        '"2x"',
    ],
    ids=lambda version: version[:8],
)
def test_a_version_that_makes_no_sense(version: str, tmp_path: Path) -> None:
    """It is refused like a newer one, with what to do; index, backup and folder stay as they are."""
    ModelLibrary(tmp_path).add_entry(entry(9))
    open_library = ModelLibrary(tmp_path)
    path = write_index(tmp_path, text_with(f'"version": {version}, ', tmp_path))
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    with pytest.raises(NewerIndexError, match=r"which no program writes that is known here\. Set it to 2 if"):
        ModelLibrary(tmp_path)
    for change in (lambda: open_library.add_entry(entry(1)), open_library.repair_index, open_library.plan_repair):
        with pytest.raises(NewerIndexError, match="the file was left as it is"):
            change()
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before
    write_index(tmp_path, path.read_text().replace(f'"version": {version}', '"version": 2'))
    assert {e.name for e in ModelLibrary(tmp_path).list_all()} == {"Renamed", "Their words"}


@pytest.mark.parametrize("version", ["3", '"3"', "3.0", "7" * 5000, "1e300"], ids=lambda version: version[:8])
def test_a_newer_version_in_any_spelling(version: str, tmp_path: Path) -> None:
    """Refused as newer, and left as it is."""
    path = write_index(tmp_path, text_with(f'"version": {version}, ', tmp_path))
    raw = path.read_bytes()
    with pytest.raises(NewerIndexError, match="newer than supported version 2"):
        ModelLibrary(tmp_path)
    assert path.read_bytes() == raw


# --- links ------------------------------------------------------------------------------------------


def test_an_entry_of_a_link_stays_as_it_stands(tmp_path: Path) -> None:
    """Also one that lacks fields, or spells numbers in its own way: it is another program's from the first."""
    folder = tmp_path / "models"
    ModelLibrary(folder)
    write_model(tmp_path / "outside.sda", "id-x", "x")
    (folder / "link.sda").symlink_to(tmp_path / "outside.sda")
    member = '"id-x": {"name":"mine",  "model_id": "id-x", "file_path": "link.sda", "final_val_loss": 1.50}'
    whole = json.dumps({**entry(1).to_dict(), "file_path": "link.sda"}, separators=(",", ":"))
    path = write_index(folder, f'{{"version": 2, "models": {{{member}, "id00001":{whole}}}}}')
    library = ModelLibrary(folder)
    assert library.list_all() == []
    assert [(found.key, found.kind) for found in library.foreign()] == [
        ("id-x", ForeignKind.OUTSIDE), ("id00001", ForeignKind.OUTSIDE)
    ]  # fmt: skip
    library.add_entry(write_model(folder / "b.sda"))
    assert library.repair_index() == (0, 0)
    assert member in path.read_text()
    assert f'"id00001":{whole}' in path.read_text()
    with pytest.raises(ForeignEntryError):
        library.add_entry(entry(1))
    assert library.remove("id-x") is False
    application = Application(folder, DISTILLGAN)
    application.write()
    assert member not in path.read_text()
    library.refresh()
    library.add_entry(entry(3))
    assert member in path.read_text()


def test_a_file_that_becomes_a_link_and_a_file_again(tmp_path: Path) -> None:
    """At the next look its entry is another program's, and then a model's again."""
    library = ModelLibrary(tmp_path / "models")
    folder = library.models_dir
    library.add_entry(write_model(folder / "a.sda", "id-a", "a"))
    (folder / "a.sda").rename(tmp_path / "a.sda")
    (folder / "a.sda").symlink_to(tmp_path / "a.sda")
    plan = library.plan_repair()
    assert [(finding.kind, finding.old_id) for finding in plan.findings] == [(FindingKind.OUTSIDE, "id-a")]
    assert library.count() == 0
    (folder / "a.sda").unlink()
    (tmp_path / "a.sda").rename(folder / "a.sda")
    assert library.plan_repair().findings == ()
    assert library.count() == 1
