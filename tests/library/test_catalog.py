"""The library's public promises: reading, sorting, searching, changing, sharing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.errors import LibraryBusyError, LibraryError, LibraryReadOnlyError, NewerIndexError
from sda_daemon.files import _temporary_name
from sda_daemon.library import ModelEntry, ModelLibrary
from sda_daemon.library.catalog import _write_index_atomic
from sda_daemon.library.entry import ENTRY_FIELDS, sort_entries
from sda_daemon.library.index import INDEX_FILE_NAME, is_mentioned
from sda_daemon.library.scan import SCAN_FILE_NAME
from tests.library.model_files import entry, write_model
from tests.permissions import bound

ROOT = Path(__file__).parents[2]


def index_of(folder: Path) -> Path:
    return folder / "model_library.json"


def index_data(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(index_of(folder).read_bytes())
    return data


# --- entries and the file ---------------------------------------------------------------------------


def test_an_entry_has_the_16_fields_in_order() -> None:
    """The training application builds its own entry from exactly these."""
    assert [field.name for field in dataclasses.fields(ModelEntry)] == [
        "model_id", "name", "description", "file_path", "file_size_bytes", "dataset_name", "dataset_file_count",
        "dataset_total_duration_s", "training_date", "save_date", "training_epochs", "final_train_loss",
        "final_val_loss", "has_analysis", "n_active_components", "tags",
    ]  # fmt: skip


def test_the_index_is_what_the_application_reads(tmp_path: Path) -> None:
    """`{"version": 1, "models": {id: 16 fields}}`, non-finite losses as Python's json writes them."""
    library = ModelLibrary(tmp_path)
    library.add_entry(
        entry(1, final_val_loss=float("inf"), final_train_loss=float("nan"), name="Größe \U0001f3b5\udcff")
    )
    data = index_data(tmp_path)
    assert list(data) == ["version", "models"]
    assert data["version"] == 1
    (fields,) = data["models"].values()
    assert tuple(fields) == ENTRY_FIELDS
    assert ModelEntry(**fields).name == "Größe \U0001f3b5\udcff"
    text = index_of(tmp_path).read_text()
    assert '"final_val_loss": Infinity' in text
    assert '"final_train_loss": NaN' in text


def test_a_new_library_has_an_index_at_once(tmp_path: Path) -> None:
    """The folder and an empty index are made."""
    library = ModelLibrary(tmp_path / "a" / "models")
    assert (library.count(), library.list_all(), library.search("x"), library.get("x")) == (0, [], [], None)
    assert index_data(tmp_path / "a" / "models") == {"version": 1, "models": {}}


def test_add_get_remove(tmp_path: Path) -> None:
    """Each change is on disk when the call returns, and the entry is a copy of the caller's."""
    library = ModelLibrary(tmp_path)
    mine = entry(1, tags=["a"])
    library.add_entry(mine)
    mine.name, mine.tags[0] = "changed", "changed"
    assert library.get("id00001") == entry(1, tags=["a"])
    assert ModelLibrary(tmp_path).list_all() == [entry(1, tags=["a"])]
    library.add_entry(entry(1, name="New"))
    assert library.count() == 1
    assert library.remove("id00001") is True
    assert library.remove("id00001") is False
    assert ModelLibrary(tmp_path).count() == 0


def test_several_at_once_are_one_write(tmp_path: Path) -> None:
    """`add_entries` and `remove_many` replace the index once."""
    library = ModelLibrary(tmp_path)
    library.add_entries(entry(n) for n in range(100))
    backup = json.loads((tmp_path / "model_library.json.bak").read_bytes())
    assert len(backup["models"]) == 0
    assert library.remove_many(["id00001", "id00002", "id00002", "unknown"]) == 2
    backup = json.loads((tmp_path / "model_library.json.bak").read_bytes())
    assert len(backup["models"]) == 100
    before = index_of(tmp_path).stat()
    library.add_entries([])
    assert library.remove_many(["unknown"]) == 0
    assert index_of(tmp_path).stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("file_path", ["../x.sda", "/x.sda", "a/x.sda", "a\\x.sda", "x.txt", "", ".x.sda", "x.sda\0"])
def test_b26_no_entry_that_leads_out_of_the_folder_is_added(file_path: str, tmp_path: Path) -> None:
    """Only bare names of `.sda` files; a refused entry changes nothing, nor do those beside it."""
    library = ModelLibrary(tmp_path)
    with pytest.raises(ValueError, match="bare name"):
        library.add_entries([entry(1), dataclasses.replace(entry(2), file_path=file_path)])
    with pytest.raises(ValueError, match="no model_id"):
        library.add_entry(entry(3, model_id=""))
    assert library.count() == 0


def test_a_transaction_writes_once_or_not_at_all(tmp_path: Path) -> None:
    """All of it at its end, nothing of it if its body raises; nested ones belong to the outermost."""
    library = ModelLibrary(tmp_path)
    library.add_entry(entry(0))

    def fail_in_the_middle() -> None:
        with library.transaction():
            library.remove("id00000")
            library.add_entry(entry(1))
            assert library.count() == 1
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()
    assert [e.model_id for e in library.list_all()] == ["id00000"]
    with library.transaction() as same:
        assert same is library
        library.add_entry(entry(1))
        library.add_entry(entry(2))
        assert len(index_data(tmp_path)["models"]) == 1
    assert ModelLibrary(tmp_path).count() == 3


# --- sorting and searching --------------------------------------------------------------------------


def test_sorting(tmp_path: Path) -> None:
    """Newest first by default; any field; both directions; text regardless of case."""
    library = ModelLibrary(tmp_path)
    library.add_entries([
        entry(1, save_date="2026-01-02", name="beta", training_epochs=5),
        entry(2, save_date="2026-03-01", name="Alpha", training_epochs=50),
        entry(3, save_date="", name="gamma", training_epochs=20),
    ])  # fmt: skip

    def ids(**how: Any) -> list[str]:
        return [e.model_id[-1] for e in library.list_all(**how)]

    assert ids() == ["2", "1", "3"]
    assert ids(reverse=False) == ["1", "2", "3"]
    assert ids(sort_by="name", reverse=False) == ["2", "1", "3"]
    assert ids(sort_by="training_epochs") == ["2", "3", "1"]
    for field in ENTRY_FIELDS:
        assert sorted(ids(sort_by=field)) == ["1", "2", "3"]


def test_an_unknown_sort_field_is_named_with_the_known_ones(tmp_path: Path) -> None:
    """A ValueError that lists all 16."""
    library = ModelLibrary(tmp_path)
    with pytest.raises(ValueError, match="'size'") as caught:
        library.list_all(sort_by="size")
    assert all(name in str(caught.value) for name in ENTRY_FIELDS)
    with pytest.raises(ValueError, match="choose one of"):
        library.search("", sort_by="__class__")


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.text(max_size=2))
)


@given(st.lists(ODD, max_size=12), st.sampled_from(ENTRY_FIELDS), st.booleans())
def test_sorting_never_fails_and_missing_values_come_last(values: list[Any], field: str, reverse: bool) -> None:
    """Whatever the values are: nothing is lost, and None, NaN and empty text are at the end."""
    entries = []
    for number, value in enumerate(values):
        item = entry(number)
        setattr(item, field, value)
        entries.append(item)
    if field == "model_id":
        entries = [item for item in entries if isinstance(item.model_id, str)]
    result = sort_entries(entries, field, reverse)
    assert len(result) == len(entries)
    found = [getattr(item, field) for item in result]
    missing = [v is None or v == "" or (isinstance(v, float) and math.isnan(v)) for v in found]
    assert missing == sorted(missing)
    numbers = [v for v in found if isinstance(v, int | float) and not math.isnan(v)]
    assert numbers == sorted(numbers, reverse=reverse)


def test_searching(tmp_path: Path) -> None:
    """Substring of name or description, any of the tags, all regardless of case."""
    library = ModelLibrary(tmp_path)
    library.add_entries([
        entry(1, name="Rain on Tin", tags=["Wet", "roof"]),
        entry(2, name="Drums", description="like RAIN", tags=["dry"]),
        entry(3, name="Straße", tags=[]),
    ])  # fmt: skip

    def found(*args: Any, **how: Any) -> set[str]:
        return {e.model_id[-1] for e in library.search(*args, **how)}

    assert found() == {"1", "2", "3"}
    assert found("rain") == {"1", "2"}
    assert found("STRASSE") == {"3"}
    assert found(tags=["wet"]) == {"1"}
    assert found(tags=["WET", "Dry"]) == {"1", "2"}
    assert found("rain", tags=["dry"]) == {"2"}
    assert found("ra n") == set()
    assert found(tags=[]) == {"1", "2", "3"}


# --- reading what may be there ----------------------------------------------------------------------


BROKEN = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"version": 1}', b'{"version": 1, "models": []}',
          b"[" * 100_000]  # fmt: skip


@pytest.mark.parametrize("raw", BROKEN, ids=range(len(BROKEN)))
def test_b23_a_broken_index_is_kept_aside_and_recovered(raw: bytes, tmp_path: Path) -> None:
    """From the backup, completed by a repair; the broken file stays under a dated name, the backup as it is."""
    library = ModelLibrary(tmp_path)
    for number in range(3):
        library.add_entry(write_model(tmp_path / f"m{number}.sda"))
    backup = (tmp_path / "model_library.json.bak").read_bytes()
    assert len(json.loads(backup)["models"]) == 2
    index_of(tmp_path).write_bytes(raw)
    again = ModelLibrary(tmp_path)
    assert {e.file_path for e in again.list_all()} == {"m0.sda", "m1.sda", "m2.sda"}
    assert len(index_data(tmp_path)["models"]) == 3
    (kept,) = tmp_path.glob("model_library.json.broken-*")
    assert kept.read_bytes() == raw
    assert (tmp_path / "model_library.json.bak").read_bytes() == backup
    assert library.refresh() is True
    assert library.count() == 3


def test_b23_a_broken_index_without_a_good_backup_is_rebuilt_from_the_files(tmp_path: Path) -> None:
    """Both are broken: every model is adopted."""
    library = ModelLibrary(tmp_path)
    library.add_entries([write_model(tmp_path / f"m{n}.sda") for n in range(3)])
    index_of(tmp_path).write_text("{")
    (tmp_path / "model_library.json.bak").write_text("{")
    assert {e.model_id for e in ModelLibrary(tmp_path).list_all()} == {"id-of-m0", "id-of-m1", "id-of-m2"}


def test_a_recovery_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    """The broken index stays where it is until a good one takes its place; what is known can be read."""
    library = ModelLibrary(tmp_path)
    library.add_entry(write_model(tmp_path / "a.sda"))
    library.add_entry(write_model(tmp_path / "b.sda"))
    index_of(tmp_path).unlink()
    index_of(tmp_path).mkdir()  # can neither be read nor replaced
    with pytest.raises(LibraryError, match="cannot be read"):
        ModelLibrary(tmp_path)
    index_of(tmp_path).rmdir()
    assert ModelLibrary(tmp_path).repair_index() == (0, 2)


def test_a_bad_entry_is_skipped_and_the_others_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One warning per bad entry, with its id and the reason."""
    good = entry(1).to_dict()
    models = {
        "id00001": good,
        "a": [],
        "b": {**good, "model_id": "other"},
        "c": {**good, "model_id": "c", "file_path": None},
        "d": {**good, "model_id": "d", "tags": "x"},
        "e": {**good, "model_id": "e", "training_epochs": "ten"},
        "f": {**good, "model_id": "f", "name": 7},
        "g": {"model_id": "g", "file_path": "g.sda"},
    }
    index_of(tmp_path).write_text(json.dumps({"version": 1, "models": models}))
    with caplog.at_level("WARNING", "sda_daemon"):
        library = ModelLibrary(tmp_path)
    assert {e.model_id for e in library.list_all()} == {"id00001", "g"}
    warned = [record.getMessage() for record in caplog.records if "library.entry_invalid" in record.getMessage()]
    assert len(warned) == 6
    assert any("training_epochs must be a number, not 'ten'" in text for text in warned)


def test_a_newer_index_is_an_error_and_never_overwritten(tmp_path: Path) -> None:
    """At opening and at every later change."""
    library = ModelLibrary(tmp_path)
    raw = json.dumps({"version": 3, "models": {}, "new": "things"})
    index_of(tmp_path).write_text(raw)
    with pytest.raises(NewerIndexError, match=r"model_library\.json: .* version 3"):
        ModelLibrary(tmp_path)
    for change in (lambda: library.add_entry(entry(1)), lambda: library.remove("x"), library.repair_index):
        with pytest.raises(NewerIndexError):
            change()
    assert index_of(tmp_path).read_text() == raw
    assert library.count() == 0


def test_unknown_fields_survive(tmp_path: Path) -> None:
    """Of an entry and of the index, through changes of other entries and of the entry itself."""
    fields = {**entry(1).to_dict(), "rating": 5, "color": {"r": 1}}
    index_of(tmp_path).write_text(json.dumps({"version": 1, "theme": "dark", "models": {"id00001": fields}}))
    library = ModelLibrary(tmp_path)
    library.add_entry(entry(2))
    library.add_entry(entry(1, name="Renamed"))
    data = index_data(tmp_path)
    assert data["theme"] == "dark"
    assert data["models"]["id00001"] == {**fields, "name": "Renamed"}
    library.remove("id00001")
    library.add_entry(entry(1))
    assert "rating" not in index_data(tmp_path)["models"]["id00001"]


def test_a_torn_read_is_waited_out(tmp_path: Path) -> None:
    """The application writes in place, slowly: the index is not taken for broken meanwhile."""
    ModelLibrary(tmp_path).add_entries(entry(n) for n in range(20))
    whole = index_of(tmp_path).read_bytes()
    started = threading.Event()

    def write_slowly() -> None:
        with index_of(tmp_path).open("wb", buffering=0) as file:
            started.set()
            for begin in range(0, len(whole), len(whole) // 12):
                file.write(whole[begin : begin + len(whole) // 12])
                threading.Event().wait(0.1)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    started.wait()
    library = ModelLibrary(tmp_path)
    writer.join()
    assert library.count() == 20
    assert list(tmp_path.glob("*.broken-*")) == []


# --- _write_index_atomic ----------------------------------------------------------------------------


def test_the_index_is_written_atomically(tmp_path: Path) -> None:
    """The previous one is the backup; on failure it is untouched and no temporary file is left."""
    path = index_of(tmp_path)
    _write_index_atomic(path, {"version": 1, "models": {}})
    old = path.read_bytes()
    _write_index_atomic(path, {"version": 1, "models": {"id00001": entry(1).to_dict()}, "extra": [1]})
    assert (tmp_path / "model_library.json.bak").read_bytes() == old
    assert json.loads(path.read_bytes()) == {"version": 1, "models": {"id00001": entry(1).to_dict()}, "extra": [1]}
    new = path.read_bytes()
    with pytest.raises(TypeError):
        _write_index_atomic(path, {"version": 1, "models": {"x": object()}})
    path.with_suffix(".json.bak").unlink()
    path.with_suffix(".json.bak").mkdir()
    (path.with_suffix(".json.bak") / "x").touch()
    with pytest.raises(OSError, match="directory"):
        _write_index_atomic(path, {"version": 1, "models": {}})
    assert path.read_bytes() == new
    assert sorted(item.name for item in tmp_path.iterdir()) == ["model_library.json", "model_library.json.bak"]


def test_permissions_of_the_index_stay(tmp_path: Path) -> None:
    """A new index is as readable as the umask says, a replaced one as readable as it was."""
    library = ModelLibrary(tmp_path)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(index_of(tmp_path).stat().st_mode) == 0o666 & ~mask
    index_of(tmp_path).chmod(0o640)
    library.add_entry(entry(1))
    assert stat.S_IMODE(index_of(tmp_path).stat().st_mode) == 0o640


def test_leftovers_of_killed_writers_are_swept_at_the_next_start(tmp_path: Path) -> None:
    """But not while someone holds the lock and may be writing."""
    ModelLibrary(tmp_path)
    stray = tmp_path / ".model_library.json.ab12cd.tmp"
    stray.write_text("half")
    other = ModelLibrary(tmp_path / ".." / tmp_path.name)
    assert not stray.exists()
    stray.write_text("half")
    with other.transaction():
        ModelLibrary(tmp_path)
        assert stray.exists()
    ModelLibrary(tmp_path)
    assert not stray.exists()


# --- many writers -----------------------------------------------------------------------------------


def test_what_others_changed_is_read_first(tmp_path: Path) -> None:
    """Two libraries on one folder see and keep each other's changes."""
    one, two = ModelLibrary(tmp_path), ModelLibrary(tmp_path)
    one.add_entry(entry(1))
    two.add_entry(entry(2))
    assert {e.model_id for e in two.list_all()} == {"id00001", "id00002"}
    assert one.count() == 1
    assert one.refresh() is True
    assert one.refresh() is False
    assert one.count() == 2
    two.remove("id00001")
    one.add_entry(entry(3))
    assert {e.model_id for e in one.list_all()} == {"id00002", "id00003"}


def test_a_program_without_locks_that_writes_in_between_loses_nothing(tmp_path: Path) -> None:
    """The application rewrites the index while a transaction is open: both changes are there afterwards."""
    library = ModelLibrary(tmp_path)
    library.add_entries([entry(1), entry(2)])
    with library.transaction():
        library.add_entry(entry(3))
        library.remove("id00001")
        data = index_data(tmp_path)
        data["models"]["theirs"] = {**entry(9).to_dict(), "model_id": "theirs"}
        data["models"]["id00002"]["name"] = "renamed by them"
        index_of(tmp_path).write_text(json.dumps(data, indent=2))
    models = index_data(tmp_path)["models"]
    assert set(models) == {"theirs", "id00002", "id00003"}
    assert models["id00002"]["name"] == "renamed by them"
    assert {e.model_id for e in library.list_all()} == set(models)


def test_a_lock_that_is_kept_too_long_is_a_clear_error(tmp_path: Path) -> None:
    """It says who is waited for and how long; the library is as before."""
    holder = ModelLibrary(tmp_path)
    other = ModelLibrary(tmp_path, lock_timeout_s=0.1)
    with holder.transaction(), pytest.raises(LibraryBusyError, match=r"\.model_library\.lock for 0\.1 s"):
        other.add_entry(entry(1))
    other.add_entry(entry(1))
    assert other.count() == 1


@pytest.mark.slow
def test_two_processes_adding_500_entries_each_lose_none(tmp_path: Path) -> None:
    """Real processes, started together, each adding one by one."""
    program = """
import sys
from pathlib import Path
from sda_daemon.library import ModelLibrary
from tests.library.model_files import entry
library = ModelLibrary(Path(sys.argv[1]), lock_timeout_s=120)
print("ready", flush=True); sys.stdin.readline()
for number in range(500):
    library.add_entry(entry(int(sys.argv[2]) * 1000 + number))
assert "torch" not in sys.modules
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path, str(n)], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    expected = {f"id{n * 1000 + number:05}" for n in range(2) for number in range(500)}
    assert set(index_data(tmp_path)["models"]) == expected
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp") or "broken" in p.name] == []


def test_threads_share_one_library(tmp_path: Path) -> None:
    """Readers never stumble over a writer, and nothing is lost."""
    library = ModelLibrary(tmp_path)
    done = threading.Event()

    def read() -> int:
        rounds = 0
        while not done.is_set():
            library.list_all()
            library.search("Model")
            rounds += 1
        return rounds

    def write(base: int) -> None:
        for number in range(25):
            library.add_entry(entry(base + number))

    with ThreadPoolExecutor(4) as pool:
        reader = pool.submit(read)
        for writer in [pool.submit(write, base) for base in (0, 100, 200)]:
            writer.result()
        done.set()
        assert reader.result() > 0
    assert ModelLibrary(tmp_path).count() == 75


# --- nothing may be written -------------------------------------------------------------------------


READ_ONLY = """
import sys
from pathlib import Path
from sda_daemon.errors import LibraryReadOnlyError
from sda_daemon.library import ModelLibrary
from tests.library.model_files import entry
folder = Path(sys.argv[1])
library = ModelLibrary(folder)
library.refresh()
library.plan_repair()
print(*sorted(item.model_id for item in library.list_all()))
try:
    library.add_entry(entry(1))
except (LibraryReadOnlyError, PermissionError) as error:
    print(error)
"""


@pytest.mark.parametrize("state", ["good", "broken", "none", "foreign lock"])
def test_a_folder_that_may_not_be_written_can_be_read(state: str, tmp_path: Path) -> None:
    """Opening, listing and planning work, even from the backup of a broken index; a change is a clear error."""
    folder = tmp_path / "models"
    library = ModelLibrary(folder)
    for name in "ab":
        library.add_entry(write_model(folder / f"{name}.sda"))
    if state == "broken":
        index_of(folder).write_text("{")
    if state == "none":
        index_of(folder).unlink()
    if state == "foreign lock":
        (folder / ".model_library.lock").chmod(0o444)
    folder.chmod(0o555)
    before = sorted(path.name for path in folder.iterdir())
    try:
        command = bound([sys.executable, "-c", READ_ONLY, str(folder)])
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in folder.iterdir()) == before
    finally:
        folder.chmod(0o755)
    listed, error = done.stdout.splitlines()
    assert listed == ("" if state == "none" else "id-of-a id-of-b")
    assert "cannot be changed" in error or "Permission denied" in error


def test_read_only_errors_have_their_own_class() -> None:
    """So that a command can exit with the code for files that cannot be written."""
    assert issubclass(LibraryReadOnlyError, LibraryError)


def test_b23_errors_name_the_folder(tmp_path: Path) -> None:
    """A library that is a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="file"):
        ModelLibrary(tmp_path / "file")


@pytest.mark.parametrize("name", [INDEX_FILE_NAME, INDEX_FILE_NAME + ".bak", SCAN_FILE_NAME])
def test_what_any_killed_writer_left_behind_is_swept(tmp_path: Path, name: str) -> None:
    """Every file that the library writes has temporary names by which the next opening knows them."""
    ModelLibrary(tmp_path)
    left = _temporary_name(tmp_path / name)
    left.write_text("half")
    ModelLibrary(tmp_path)
    assert not left.exists()


def test_one_look_into_the_index_without_decoding_it(tmp_path: Path) -> None:
    """What is not mentioned is not there; where the index is missing a part, anything may be."""
    assert not is_mentioned(tmp_path, "some-id")
    library = ModelLibrary(tmp_path)
    library.add_entries([entry(1, model_id="some-id"), entry(2, model_id='quoted "id"')])
    assert is_mentioned(tmp_path, "some-id")
    assert is_mentioned(tmp_path, 'quoted "id"')
    assert not is_mentioned(tmp_path, "some")
    index = tmp_path / "model_library.json"
    index.write_text(json.dumps(json.loads(index.read_bytes())))  # as another program writes it
    assert is_mentioned(tmp_path, "some-id")
    assert not is_mentioned(tmp_path, "other-id")
    index.write_bytes(index.read_bytes()[:-3])  # it is just being written
    assert is_mentioned(tmp_path, "other-id")


def test_searches_see_every_change(tmp_path: Path) -> None:
    """What one search has found out is not believed by the next one after any kind of change."""
    library = ModelLibrary(tmp_path)

    def found() -> list[str]:
        return sorted(item.name for item in library.search("strings"))

    library.add_entry(entry(1, name="strings 1"))
    assert found() == ["strings 1"]
    library.add_entry(entry(2, name="strings 2"))
    assert found() == ["strings 1", "strings 2"]
    library.add_entry(entry(2, name="brass 2"))
    assert found() == ["strings 1"]
    with contextlib.suppress(KeyError), library.transaction():
        library.add_entry(entry(3, name="strings 3"))
        assert found() == ["strings 1", "strings 3"]
        raise KeyError
    assert found() == ["strings 1"]
    ModelLibrary(tmp_path).add_entry(entry(4, name="strings 4"))
    library.refresh()
    assert found() == ["strings 1", "strings 4"]
    library.remove(entry(1).model_id)
    assert found() == ["strings 4"]
