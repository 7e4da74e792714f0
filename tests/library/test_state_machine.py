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

from sda_daemon.errors import ModelFileError
from sda_daemon.library import ModelLibrary
from sda_daemon.library.repair import FindingKind
from sda_daemon.models.header import read_model_header
from tests.library.model_files import write_model

NAMES = st.sampled_from(["a.sda", "b.sda", "c.sda", "dd.sda", "ee.sda"])
IDS = st.sampled_from(["id1", "id2", "id3"])


class LibraryMachine(RuleBasedStateMachine):
    """The simple model: what the index must list as long as only the library is used, and what lies in the folder."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="library-machine-"))
        self.folder = self.base / "models"
        self.counter = 0
        self.listed: dict[str, str] | None = {}
        """Id to name; None after an outside edit, until a repair has made index and folder agree."""

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    @initialize()
    def open_it(self) -> None:
        self.library = ModelLibrary(self.folder)
        (self.base / "outside.sda").write_bytes(b"precious")

    def text(self) -> str:
        """A text that no other file has, of a length of its own."""
        self.counter += 1
        return f"{self.counter} " + "x" * self.counter

    # --- through the library ----------------------------------------------------------------------

    @rule(name=NAMES, model_id=IDS)
    def add(self, name: str, model_id: str) -> None:
        if self.listed is not None and ((self.folder / name).exists() or model_id in self.listed):
            self.listed = None  # overwrites a file or an id: only a repair sorts that out
        title = self.text()
        self.library.add_entry(write_model(self.folder / name, model_id, title))
        if self.listed is not None:
            self.listed[model_id] = title

    @rule(model_id=IDS)
    def remove_entry_and_file(self, model_id: str) -> None:
        entry = self.library.get(model_id)
        known = self.library.remove(model_id)
        if entry is not None and known and entry.file_path in os.listdir(self.folder):
            (self.folder / entry.file_path).unlink()
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
        entries = self.library.list_all()
        files: dict[str, Any] = {}
        for path in self.folder.glob("*.sda"):
            try:
                files[path.name] = read_model_header(path)
            except ModelFileError:
                continue
            except OSError:
                continue  # a link
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
            if inner.count(header.metadata.model_id) == 1 and not sick and self.listed is not None:
                assert by_file[name].model_id == header.metadata.model_id
        again = self.library.plan_repair()
        assert again.findings == ()
        assert self.library.repair_index() == (0, 0)
        anew = [f for f in ModelLibrary(self.folder).plan_repair().findings if f.kind is not FindingKind.INVALID]
        assert anew == []
        self.listed = {entry.model_id: entry.name for entry in entries}

    # --- crashes ----------------------------------------------------------------------------------

    @rule(name=NAMES, model_id=IDS)
    def crash_between_file_and_index(self, name: str, model_id: str) -> None:
        if not (self.folder / name).exists():
            write_model(self.folder / name, model_id, self.text())
            self.listed = None
            self.reopen()

    @rule(model_id=IDS)
    def crash_between_index_and_unlink(self, model_id: str) -> None:
        self.library.remove(model_id)
        self.listed = None
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
        self.listed = None

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        if (self.folder / old).exists():
            (self.folder / old).rename(self.folder / new)
            self.listed = None

    @rule(old=NAMES, new=NAMES)
    def copy(self, old: str, new: str) -> None:
        if (self.folder / old).is_file() and old != new:
            shutil.copy2(self.folder / old, self.folder / new)
            self.listed = None

    @rule(name=NAMES, model_id=IDS)
    def replace(self, name: str, model_id: str) -> None:
        write_model(self.folder / name, model_id, self.text())
        self.listed = None

    @rule(name=NAMES)
    def overwrite_with_junk(self, name: str) -> None:
        (self.folder / name).write_text(self.text())
        self.listed = None

    @rule()
    def delete_the_index(self) -> None:
        (self.folder / "model_library.json").unlink(missing_ok=True)
        self.listed = None

    @rule(keep=st.integers(0, 200), backup_too=st.booleans())
    def truncate_the_index(self, keep: int, backup_too: bool) -> None:
        for name in ["model_library.json", "model_library.json.bak"][: 2 if backup_too else 1]:
            if (self.folder / name).exists():
                os.truncate(self.folder / name, min(keep, (self.folder / name).stat().st_size))
        self.listed = None

    @precondition(lambda self: (self.folder / "model_library.json").exists())
    @rule(kept=st.sets(IDS))
    def the_application_writes_from_its_memory(self, kept: set[str]) -> None:
        try:
            data = json.loads((self.folder / "model_library.json").read_bytes())
        except ValueError:
            return
        data["models"] = {key: value for key, value in data["models"].items() if key in kept}
        (self.folder / "model_library.json").write_text(json.dumps(data, indent=2))
        self.listed = None

    @precondition(lambda self: (self.folder / "model_library.json").exists())
    @rule(file_path=st.sampled_from(["../outside.sda", "/etc/passwd", "..", "x/../../outside.sda"]))
    def doctor_the_index(self, file_path: str) -> None:
        try:
            data = json.loads((self.folder / "model_library.json").read_bytes())
        except ValueError:
            return
        data["models"]["evil"] = {"model_id": "evil", "file_path": file_path}
        (self.folder / "model_library.json").write_text(json.dumps(data))
        self.listed = None

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
