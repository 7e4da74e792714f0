"""b39: a library that several people share stays readable, and each of them can do all with everyone's models."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from sda_daemon.access import Access, make_shared_folder, take_access, usual_access
from sda_daemon.errors import ForeignEntryError, SomeFailedError
from sda_daemon.files import publish_new, write_atomic
from sda_daemon.library import ModelLibrary, trash
from sda_daemon.library.kept import KEPT_FILE_NAME
from sda_daemon.models.formats import DISTILL
from sda_daemon.state.locks import instance_lock, is_locked
from tests.library.application import Application
from tests.library.model_files import write_model

ROOT = Path(__file__).parents[2]
AUDIO = 40_100
"""A group of our own; ids need no names."""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def index_of(folder: Path) -> Path:
    return folder / "model_library.json"


@pytest.fixture
def umask() -> Iterator[None]:
    """A umask of 022 for the test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def library(tmp_path: Path, umask: None) -> ModelLibrary:
    """A library of one model."""
    library = ModelLibrary(tmp_path / "models")
    library.add_entry(write_model(library.models_dir / "a.sda"))
    return library


# --- the index --------------------------------------------------------------------------------------


def test_b39_the_index_has_the_mode_from_before_mkstemp(library: ModelLibrary) -> None:
    """Whoever changes the library next gives it back, also without changing anything, and another process too."""
    folder = library.models_dir
    index_of(folder).chmod(0o664)
    library.repair_index()
    for again in (library, ModelLibrary(folder)):
        Application(folder, DISTILL).write()
        assert mode_of(index_of(folder)) == 0o600
        again.repair_index()
        assert mode_of(index_of(folder)) == 0o664
        Application(folder, DISTILL).write()
        again.add_entry(write_model(folder / "b.sda"))
        assert mode_of(index_of(folder)) == 0o664
        assert mode_of(folder / "model_library.json.bak") == 0o664


def test_b39_without_a_memory_the_umask_says_it(tmp_path: Path, umask: None) -> None:
    """A library that only the application has written so far is as readable as its other files are."""
    write_model(tmp_path / "a.distill")
    application = Application(tmp_path, DISTILL)
    application.add("a.distill")
    assert mode_of(index_of(tmp_path)) == 0o600
    ModelLibrary(tmp_path).repair_index()
    assert mode_of(index_of(tmp_path)) == 0o644
    assert not (tmp_path / KEPT_FILE_NAME).exists()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o644])
def test_b39_a_mode_that_a_person_has_set_stays(library: ModelLibrary, mode: int) -> None:
    """Even one that looks like that of `mkstemp`."""
    folder = library.models_dir
    index_of(folder).chmod(mode)
    library.repair_index()
    assert mode_of(index_of(folder)) == mode
    ModelLibrary(folder).add_entry(write_model(folder / "b.sda"))
    assert mode_of(index_of(folder)) == mode
    Application(folder, DISTILL).write()
    ModelLibrary(folder).repair_index()
    assert mode_of(index_of(folder)) == mode


def test_b39_a_reader_changes_nothing(library: ModelLibrary) -> None:
    """Listing is no reason to touch a file."""
    Application(library.models_dir, DISTILL).write()
    before = index_of(library.models_dir).stat().st_ctime_ns
    again = ModelLibrary(library.models_dir)
    again.list_all()
    again.plan_repair()
    assert index_of(library.models_dir).stat().st_ctime_ns == before


def test_b39_a_broken_index_by_mkstemp(library: ModelLibrary) -> None:
    """What is recovered from the backup is for those who could read it before."""
    index_of(library.models_dir).chmod(0o664)
    library.repair_index()
    index_of(library.models_dir).unlink()
    index_of(library.models_dir).write_text("{")
    index_of(library.models_dir).chmod(0o600)
    ModelLibrary(library.models_dir)
    assert mode_of(index_of(library.models_dir)) == 0o664


def test_b39_a_group_that_shares_the_folder_shares_what_is_in_it(tmp_path: Path, umask: None) -> None:
    """Index, backup, memory, cache, trash, notes and locks; models as well."""
    folder = tmp_path / "models"
    folder.mkdir()
    folder.chmod(0o2775)
    os.umask(0o077)
    library = ModelLibrary(folder)
    assert mode_of(index_of(folder)) == 0o660
    library.add_entries([write_model(folder / f"{name}.sda") for name in "ab"])
    library.repair_index()
    (first, _) = library.list_all()
    trash.discard(library, [first])
    assert mode_of(folder / trash.TRASH_FOLDER) & 0o2070 == 0o2070
    names = ["model_library.json", "model_library.json.bak", ".model_library.lock", ".model_library.scan.json"]
    for path in [*(folder / name for name in names), *(folder / trash.TRASH_FOLDER).glob("*.json")]:
        assert mode_of(path) & 0o060 == 0o060, path


def test_b39_a_private_folder_stays_private(tmp_path: Path) -> None:
    """Nothing is opened to a group that may not even look into the folder."""
    folder = tmp_path / "models"
    folder.mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        library = ModelLibrary(folder)
        library.add_entry(write_model(folder / "a.sda"))
        trash.discard(library, library.list_all())
    finally:
        os.umask(before)
    assert mode_of(folder / trash.TRASH_FOLDER) == 0o700
    assert mode_of(index_of(folder)) == 0o600


def test_access_of_new_files(tmp_path: Path, umask: None) -> None:
    """By the umask; what a group shares it may write; what replaces something has its access."""
    path = tmp_path / "x"
    write_atomic(path, [b"1"])
    assert mode_of(path) == 0o644
    path.chmod(0o604)
    write_atomic(path, [b"2"])
    assert mode_of(path) == 0o604
    write_atomic(path, [b"3"], access=Access(0o640, path.stat().st_gid))
    assert mode_of(path) == 0o640
    assert usual_access(tmp_path) == Access(0o644, tmp_path.stat().st_gid)
    tmp_path.chmod(0o770)
    assert usual_access(tmp_path).mode == 0o664
    new = tmp_path / "new"
    new.write_bytes(b"")
    new.chmod(0o600)
    take_access(new, tmp_path / "other")
    assert mode_of(new) == 0o660
    take_access(new, path)
    assert mode_of(new) == 0o640
    (tmp_path / "inner").mkdir(mode=0o700)
    make_shared_folder(tmp_path / "inner")
    assert mode_of(tmp_path / "inner") == 0o770


# --- a restore that fails ---------------------------------------------------------------------------


def test_b39_what_cannot_be_restored_stays_in_the_trash(library: ModelLibrary) -> None:
    """Of several models one cannot be added: that one is in the trash as before, and the others are restored."""
    folder = library.models_dir
    library.add_entry(write_model(folder / "b.sda"))
    trash.discard(library, library.list_all())
    text = index_of(folder).read_text()
    index_of(folder).write_text(text.replace('"models": {', '"models": {"id-of-a": "something else"'))
    items = sorted(trash.list_trash(folder), key=lambda item: item.entry.model_id, reverse=True)
    with pytest.raises(SomeFailedError, match="1 of 2 models could not be restored") as failed:
        trash.restore(library, items)
    assert [entry.file_path for entry in failed.value.done] == ["b.sda"]
    assert [type(error) for _, error in failed.value.failures] == [ForeignEntryError]
    assert [item.entry.file_path for item in trash.list_trash(folder)] == ["a.sda"]
    assert [entry.file_path for entry in library.list_all()] == ["b.sda"]
    assert not (folder / "a.sda").exists()
    with pytest.raises(ForeignEntryError):
        trash.restore(library, trash.list_trash(folder))


# --- two people -------------------------------------------------------------------------------------

USERS = {"alice": 40_001, "bob": 40_002}


def as_user(name: str, body: str, mask: int = 0o027) -> str:
    """Run a program as a member of the group, in a process of its own; return what it printed.

    All that it needs is imported before: another user may not be able to read this installation.
    """
    program = f"""
import os, sys
import sda_daemon.cli, sda_daemon.library.transfer, sda_daemon.library.editing, sda_daemon.state.locks
import encodings.cp437, encodings.idna, tempfile, zipfile, shutil, pickletools, glob
from pathlib import Path
from sda_daemon.errors import LibraryError
from sda_daemon.access import take_access
from sda_daemon.files import publish_new
from sda_daemon.library import ModelLibrary, trash
from sda_daemon.library.editing import MetadataChange, edit_model
from sda_daemon.state.locks import is_locked
from sda_daemon.models.formats import SDA
from tests.library.application import Application
from tests.library.model_files import write_model
os.setgroups([{AUDIO}])
os.setgid({USERS[name]})
os.setuid({USERS[name]})
os.umask({mask})
{textwrap.dedent(body)}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shared(umask: None) -> Iterator[Path]:
    """A folder that belongs to a group, in a place that everyone can reach."""
    if os.geteuid() != 0:
        pytest.skip("only the superuser can be someone else")
    with tempfile.TemporaryDirectory(prefix="shared-library-") as base:
        folder = Path(base) / "models"
        folder.mkdir()
        Path(base).chmod(0o755)
        os.chown(folder, USERS["alice"], AUDIO)
        folder.chmod(0o2770)
        yield folder


@pytest.mark.parametrize("has_setgid", [True, False])
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_b39_two_members_of_a_group(shared: Path, has_setgid: bool, mask: int) -> None:
    """Each of them deletes, restores and edits what the other one has made, whatever their umask is."""
    shared.chmod(0o2770 if has_setgid else 0o770)

    head = f"""
library = ModelLibrary(Path({str(shared)!r}))
folder = library.models_dir
def make(name):
    entry = write_model(folder / name)
    take_access(folder / name, folder / "as workers do")
    library.add_entry(entry)
def trashed(name):
    return [item for item in trash.list_trash(folder) if item.entry.name == name]
def entries(*names):
    return [entry for entry in library.list_all() if entry.name in names]
"""

    def run(name: str, body: str) -> str:
        return as_user(name, head + textwrap.dedent(body), mask)

    run("alice", "make('a.sda'); make('b.distill')")
    run("bob", "make('c.sda'); trash.discard(library, entries('a', 'c'))")
    run("alice", "trash.restore(library, trashed('c'))")
    run("bob", "trash.restore(library, trashed('a')); library.repair_index()")
    run("bob", "edit_model(library, 'id-of-b', MetadataChange(name='by bob'))")
    run("alice", "edit_model(library, 'id-of-b', MetadataChange(name='by alice'))")
    run("alice", "trash.discard(library, entries('c'))")
    run("bob", "trash.empty(folder, trashed('c')); trash.purge(library, entries('a'))")
    printed = run("alice", "print([entry.name for entry in library.list_all()], len(library.plan_repair().findings))")
    assert printed == "['by alice'] 0\n"
    assert not (shared / trash.TRASH_FOLDER).exists()
    left = [path for path in shared.iterdir() if path.stat().st_gid != AUDIO and not path.name.endswith(".lock")]
    assert left == []
    assert [path.name for path in shared.iterdir() if path.name.startswith(".sda-work")] == []


def test_b39_the_application_of_one_locks_no_one_out_for_long(shared: Path) -> None:
    """Alice's application leaves an index for her eyes only; her next command or daemon mends it for the group."""
    library = f"library = ModelLibrary(Path({str(shared)!r}))\n"
    as_user("alice", library)
    as_user("alice", f"Application(Path({str(shared)!r}), SDA).write()")
    assert (mode_of(index_of(shared)), index_of(shared).stat().st_uid) == (0o600, USERS["alice"])
    refused = f"""
        try:
            ModelLibrary(Path({str(shared)!r}))
        except LibraryError as error:
            print(error)
        """
    assert "cannot be read" in as_user("bob", refused)
    as_user("alice", library + "library.repair_index()")
    assert mode_of(index_of(shared)) & 0o060 == 0o060
    as_user("bob", library + "library.repair_index(); library.remove('nothing')")


def test_b39_whether_a_daemon_is_at_work_can_be_seen_by_others(shared: Path) -> None:
    """The lock of another user's daemon says so, and that of one that has ended does not."""
    ask = f"print(is_locked(Path({str(shared)!r})))"
    with instance_lock(shared):
        assert is_locked(shared)
        assert as_user("bob", ask) == "True\n"
    assert as_user("bob", ask) == "False\n"
    (shared / ".sda-daemon.lock").chmod(0o644)  # as an earlier version left it
    assert as_user("bob", ask) == "False\n"
    with instance_lock(shared):
        assert as_user("bob", ask) == "True\n"
    assert not is_locked(shared)


@pytest.mark.parametrize("owner", [0, USERS["alice"]])
def test_b39_a_file_that_cannot_be_moved_gets_no_second_name(shared: Path, owner: int) -> None:
    """Neither a link nor an empty file that only claims the name."""
    source = shared.parent / "source"
    source.mkdir(mode=0o755)
    (source / "x").write_bytes(b"x")
    os.chown(source / "x", owner, -1)
    body = f"""
        try:
            publish_new(Path({str(source / "x")!r}), Path({str(shared)!r}), ["y"])
        except OSError as error:
            print("refused")
        """
    assert as_user("alice", body) == "refused\n"
    assert list(shared.iterdir()) == []
    assert publish_new(source / "x", shared, ["y"]) == shared / "y"
    assert not (source / "x").exists()
