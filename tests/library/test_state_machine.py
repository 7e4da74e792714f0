"""Random operations, crashes between steps and edits from outside, against a simple model of what must be."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sda_daemon.errors import ForeignEntryError, ModelFileError
from sda_daemon.library import ModelEntry, ModelLibrary
from sda_daemon.library.entry import is_bare_model_name
from sda_daemon.library.repair import FindingKind
from sda_daemon.models.formats import FORMATS, ModelFormat, format_of_name
from sda_daemon.models.header import read_model_header
from tests.library.application import Application
from tests.library.model_files import write_model

NAMES = st.sampled_from(["a.sda", "b.distill", "c.distillgan", "dd.sda", "ee.distill"])
IDS = st.sampled_from(["id1", "id2", "id3"])
FOREIGN = {
    "vq": '"vq": {"model_id": "vq", "file_path": "x.vqvae", "loss": 1.50e0, "far": 1e400, "books": [1.0, 1]}',
    "no ending": '"no ending" : {"file_path": "notes", "a": {"z": NaN, "a": -0.0}}',
    "folder": '"folder": {"model_id": "folder", "file_path": "sub",\n  "n": 1E2}',
    "list": '"list": [1.0,  2, {"b": null, "a": 1}]',
    "types": '"types": {"model_id": "types", "file_path": "types.sda", "training_epochs": "1/4"}',
    "id1": '"id1": "something else under an id of ours"',
    "evil": '"evil": {"model_id": "evil", "file_path": "../outside.sda", "codec": 1}',
}
"""Entries of other programs, as they stand in the index. No generation of the application knows them."""
TOP = '"theme": {"dark": true, "size": 1.0}'
FIELD = '"rating":5.0'


class LibraryMachine(RuleBasedStateMachine):
    """The simple model: what the index must list as long as only the library is used, and what lies in the folder."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="library-machine-"))
        self.folder = self.base / "models"
        self.counter = 0
        self.listed: dict[str, str] | None = {}
        """Id to name; None after an outside edit, until a repair has made index and folder agree."""
        self.foreign: dict[str, bool] = {}
        """Keys of foreign entries in the index, and whether the library has seen them there."""
        self.maybe: set[str] = set()
        self.top: bool | None = None
        """Whether the library has seen the key beside `models`; None if there is none."""
        self.rated: str | None = None
        """The model whose entry has a further field, as long as nothing happens to its file."""
        self.rating_is_seen = False
        self.version = 1

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    @initialize()
    def open_it(self) -> None:
        self.library = ModelLibrary(self.folder)
        (self.base / "outside.sda").write_bytes(b"precious")

    @property
    def index(self) -> Path:
        return self.folder / "model_library.json"

    def see(self) -> None:
        """The library has held its lock: what is in the index now is known from now on, and put back if it is lost."""
        text = self.index.read_text()
        self.foreign = dict.fromkeys([*self.foreign, *(key for key in self.maybe if FOREIGN[key] in text)], True)
        self.maybe = set()
        self.top = None if self.top is None else True
        self.rating_is_seen = True
        for key in self.foreign:
            assert FOREIGN[key] in text, f"{key} is not what it was"
        if self.top is not None:
            assert TOP in text
        assert json.loads(text)["version"] == self.version

    def forget_unseen(self) -> None:
        """Another program has lost what the library has not held its lock for; it may have seen it all the same."""
        self.maybe |= {key for key, seen in self.foreign.items() if not seen}
        self.foreign = {key: seen for key, seen in self.foreign.items() if seen}
        self.top = self.top or None
        if not self.rating_is_seen:
            self.rated = None

    def files_changed(self) -> None:
        """Something happened to the files: what is listed, and of what model the field was, only a repair knows."""
        self.listed = self.rated = None

    def text(self) -> str:
        """A text that no other file has, of a length of its own."""
        self.counter += 1
        return f"{self.counter} " + "x" * self.counter

    def write(self, name: str, model_id: str, title: str) -> ModelEntry:
        """Write a model's file; no two are saved at the same time."""
        return write_model(self.folder / name, model_id, title, save_date=f"2026-01-01T00:00:00.{self.counter:06}")

    # --- through the library ----------------------------------------------------------------------

    @rule(name=NAMES, model_id=IDS)
    def add(self, name: str, model_id: str) -> None:
        if self.listed is not None and ((self.folder / name).exists() or model_id in self.listed):
            self.listed = None  # overwrites a file or an id: only a repair sorts that out
        title = self.text()
        if self.listed is None:
            self.rated = None
        entry = self.write(name, model_id, title)
        self.library.refresh()
        is_taken = model_id in {item.key for item in self.library.foreign()}
        assert is_taken or model_id not in self.foreign
        if is_taken:
            self.files_changed()
            with pytest.raises(ForeignEntryError):
                self.library.add_entry(entry)
            return
        self.library.add_entry(entry)
        self.see()
        if self.listed is not None:
            self.listed[model_id] = title

    @rule(model_id=IDS)
    def remove_entry_and_file(self, model_id: str) -> None:
        entry = self.library.get(model_id)
        known = self.library.remove(model_id)
        if entry is not None and known and entry.file_path in os.listdir(self.folder):
            (self.folder / entry.file_path).unlink()
        if self.rated == model_id:
            self.rated = None
        self.see()
        if self.listed is not None:
            assert (self.listed.pop(model_id, None) is not None) == known

    @rule()
    def failing_transaction(self) -> None:
        before = {entry.model_id: entry.name for entry in self.library.list_all()}
        self.library.refresh()
        try:
            with self.library.transaction():
                self.library.remove_many(list(before))
                raise KeyError
        except KeyError:
            pass
        if self.listed is not None:
            assert {entry.model_id: entry.name for entry in self.library.list_all()} == before

    @rule()
    def reopen(self) -> None:
        self.library = ModelLibrary(self.folder)

    @rule()
    def lose_the_cache(self) -> None:
        (self.folder / ".model_library.scan.json").unlink(missing_ok=True)
        self.library = ModelLibrary(self.folder)

    @rule()
    def repair(self) -> None:
        self.library.repair_index()
        self.see()
        entries = self.library.list_all()
        files: dict[str, Any] = {}
        for path in (path for path in self.folder.iterdir() if is_bare_model_name(path.name)):
            try:
                header = read_model_header(path)
            except ModelFileError:
                continue
            except OSError:
                continue  # a link
            if header.format is format_of_name(path.name):  # else renamed to the ending of another generation
                files[path.name] = header
        by_file = {entry.file_path: entry for entry in entries}
        assert len(by_file) == len(entries)
        sick = set(by_file) - set(files)
        assert all((self.folder / name).is_file() for name in sick), "an entry without a file"
        assert set(files) <= set(by_file), "a model without an entry"
        for name, header in files.items():
            assert by_file[name].name == header.metadata.name
            assert by_file[name].file_size_bytes == header.size_bytes
        inner = [header.metadata.model_id for header in files.values()]
        for name, header in files.items():
            is_free = header.metadata.model_id not in self.foreign
            if inner.count(header.metadata.model_id) == 1 and not sick and self.listed is not None and is_free:
                assert by_file[name].model_id == header.metadata.model_id
        if self.rated is not None:
            assert f"{FIELD}," in self.index.read_text() or f"{FIELD}}}" in self.index.read_text()
            assert json.loads(self.index.read_bytes())["models"][self.rated]["rating"] == 5.0
        again = self.library.plan_repair().without([FindingKind.OUTSIDE])
        assert (again.findings, again.put_back) == ((), ())
        assert {item.key for item in (*again.foreign, *self.library.foreign())} == set(self.foreign)
        assert self.library.repair_index() == (0, 0)
        passed_over = (FindingKind.INVALID, FindingKind.OUTSIDE)
        assert ModelLibrary(self.folder).plan_repair().without(passed_over).findings == ()
        self.listed = {entry.model_id: entry.name for entry in entries}

    @rule()
    def repair_by_a_person(self) -> None:
        self.library.apply_repair(self.library.plan_repair())
        self.foreign.pop("evil", None)
        self.listed = None
        self.see()

    # --- crashes ----------------------------------------------------------------------------------

    @rule(name=NAMES, model_id=IDS)
    def crash_between_file_and_index(self, name: str, model_id: str) -> None:
        if not (self.folder / name).exists():
            self.write(name, model_id, self.text())
            self.files_changed()
            self.reopen()

    @rule(model_id=IDS)
    def crash_between_index_and_unlink(self, model_id: str) -> None:
        self.library.remove(model_id)
        self.files_changed()
        self.see()
        self.reopen()

    @precondition(lambda self: (self.folder / "model_library.json").exists())
    @rule(share=st.floats(0, 1))
    def crash_while_writing_the_index(self, share: float) -> None:
        raw = (self.folder / "model_library.json").read_bytes()
        stray = self.folder / ".model_library.json.0a1b2c.tmp"
        stray.write_bytes(raw[: int(len(raw) * share)])
        self.reopen()
        assert not stray.exists()

    # --- from outside -----------------------------------------------------------------------------

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        self.files_changed()

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        if (self.folder / old).exists():
            (self.folder / old).rename(self.folder / new)
            self.files_changed()

    @rule(old=NAMES, new=NAMES)
    def copy(self, old: str, new: str) -> None:
        if (self.folder / old).is_file() and old != new:
            shutil.copy2(self.folder / old, self.folder / new)
            self.files_changed()

    @rule(name=NAMES, model_id=IDS)
    def replace(self, name: str, model_id: str) -> None:
        self.write(name, model_id, self.text())
        self.files_changed()

    @rule(name=NAMES)
    def overwrite_with_junk(self, name: str) -> None:
        (self.folder / name).write_text(self.text())
        self.files_changed()

    @rule()
    def delete_the_index(self) -> None:
        self.index.unlink(missing_ok=True)
        self.forget_unseen()
        self.version = 1
        self.listed = None

    @rule(keep=st.integers(0, 200), backup_too=st.booleans())
    def truncate_the_index(self, keep: int, backup_too: bool) -> None:
        if self.index.exists() and self.index.stat().st_size <= keep:
            return  # there is nothing to cut off
        for name in ["model_library.json", "model_library.json.bak"][: 2 if backup_too else 1]:
            if (self.folder / name).exists():
                os.truncate(self.folder / name, min(keep, (self.folder / name).stat().st_size))
        self.forget_unseen()
        self.maybe.add("evil")  # what a person had removed with the last write is in the backup
        self.listed = None
        self.rated = None  # the backup may be older than what was seen of it
        self.library = ModelLibrary(self.folder)
        self.version = json.loads(self.index.read_bytes())["version"]

    @precondition(lambda self: self.index.exists())
    @rule(generation=st.sampled_from(FORMATS), kept=st.sets(IDS))
    def the_application_writes_from_its_memory(self, generation: ModelFormat, kept: set[str]) -> None:
        application = Application(self.folder, generation)
        application.memory = {key: value for key, value in application.memory.items() if key in kept}
        application.write()
        self.forget_unseen()
        self.version = generation.index_version
        self.listed = None

    @precondition(lambda self: self.index.exists())
    @rule(key=st.sampled_from(sorted(FOREIGN)))
    def another_program_adds_an_entry(self, key: str) -> None:
        text = self.index.read_text()
        if key not in json.loads(text)["models"]:
            self.put(text, '"models": {', FOREIGN[key], is_empty=not json.loads(text)["models"])
            self.foreign[key] = False

    @precondition(lambda self: self.index.exists() and self.top is None)
    @rule()
    def another_program_adds_a_key(self) -> None:
        text = self.index.read_text()
        if "theme" not in json.loads(text):
            self.put(text, "{", TOP, is_empty=False)
            self.top = False

    @precondition(lambda self: self.index.exists() and self.rated is None and self.listed)
    @rule()
    def another_program_rates_a_model(self) -> None:
        text, model_id = self.index.read_text(), min(self.listed or {})
        before = f'"{model_id}": {{'
        if before in text and "rating" not in json.loads(text)["models"][model_id]:
            self.put(text, before, FIELD, is_empty=False)
            self.rated, self.rating_is_seen = model_id, False

    @precondition(lambda self: self.index.exists() and self.version == 1)
    @rule()
    def a_later_generation_takes_over(self) -> None:
        text = self.index.read_text()
        self.index.write_text(text.replace('"version": 1', '"version": 2'))
        self.version = 2

    def put(self, text: str, behind: str, member: str, *, is_empty: bool) -> None:
        """Write a member into the index, behind a text that stands there once."""
        assert text.count(behind) >= 1
        self.index.write_text(text.replace(behind, f"{behind}{member}{'' if is_empty else ','}", 1))

    # --- always -----------------------------------------------------------------------------------

    @invariant()
    def what_is_listed_is_right(self) -> None:
        if self.listed is None or not hasattr(self, "library"):
            return
        assert {entry.model_id: entry.name for entry in self.library.list_all()} == self.listed
        assert {entry.model_id: entry.name for entry in ModelLibrary(self.folder).list_all()} == self.listed

    @invariant()
    def nothing_outside_is_touched(self) -> None:
        if hasattr(self, "library"):
            assert (self.base / "outside.sda").read_bytes() == b"precious"
            assert sorted(path.name for path in self.base.iterdir()) == ["models", "outside.sda"]


TestLibraryMachine = pytest.mark.slow(LibraryMachine.TestCase)
TestLibraryMachine.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
