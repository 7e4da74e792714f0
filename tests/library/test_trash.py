"""Deleting models and bringing them back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sda_daemon.errors import LibraryBusyError, LibraryError, ModelExistsError
from sda_daemon.library import ModelEntry, ModelLibrary, trash
from sda_daemon.library.editing import MetadataChange, edit_model
from sda_daemon.models import ModelMetadata, save_model_from_checkpoint
from sda_daemon.models.loading import load_model
from tests.library.model_files import write_model

Library = tuple[ModelLibrary, list[ModelEntry]]


@pytest.fixture
def two(tmp_path: Path, small_checkpoints: Callable[..., Path]) -> Library:
    """A library with two models."""
    models = tmp_path / "models"
    for seed in range(2):
        save_model_from_checkpoint(small_checkpoints(seed), ModelMetadata(f"id-{seed}", f"Model {seed}"), models)
    library = ModelLibrary(models)
    return library, library.list_all(sort_by="name", reverse=False)


def test_there_and_back(two: Library) -> None:
    """Entry, file name and content are what they were; the trash is empty again."""
    library, (first, _) = two
    content = (library.models_dir / first.file_path).read_bytes()
    (item,) = trash.discard(library, [first])
    assert library.get(first.model_id) is None
    assert not (library.models_dir / first.file_path).exists()
    assert library.plan_repair().findings == ()
    assert [found.entry for found in trash.list_trash(library.models_dir)] == [first]
    assert item.path.read_bytes() == content
    assert trash.restore(library, trash.list_trash(library.models_dir)) == [first]
    assert (library.models_dir / first.file_path).read_bytes() == content
    assert ModelLibrary(library.models_dir).get(first.model_id) == first
    assert list((library.models_dir / trash.TRASH_FOLDER).iterdir()) == []


def test_a_taken_file_name_gets_a_number(two: Library) -> None:
    """Restoring never overwrites what has the old name by now."""
    library, (first, second) = two
    trash.discard(library, [first])
    (library.models_dir / second.file_path).rename(library.models_dir / first.file_path)
    library.repair_index()
    (back,) = trash.restore(library, trash.list_trash(library.models_dir))
    assert back.file_path != first.file_path
    assert library.plan_repair().findings == ()
    assert library.count() == 2


def test_a_model_that_is_there_again_is_not_restored(two: Library) -> None:
    """Two models of one id cannot be; the one in the trash stays there."""
    library, (first, _) = two
    source = (library.models_dir / first.file_path).read_bytes()
    trash.discard(library, [first])
    (library.models_dir / first.file_path).write_bytes(source)
    library.repair_index()
    with pytest.raises(ModelExistsError, match="again"):
        trash.restore(library, trash.list_trash(library.models_dir))
    assert len(trash.list_trash(library.models_dir)) == 1


def test_the_same_name_twice_in_the_trash(two: Library) -> None:
    """A second deletion within the same second does not replace the first."""
    library, (first, _) = two
    source = (library.models_dir / first.file_path).read_bytes()
    for _ in range(3):
        trash.discard(library, [first])
        (library.models_dir / first.file_path).write_bytes(source)
        library.repair_index()
    assert len(trash.list_trash(library.models_dir)) == 3


def test_without_its_note_a_file_tells_itself(two: Library) -> None:
    """Restoring needs the note only for the old file name."""
    library, (first, _) = two
    (item,) = trash.discard(library, [first])
    item.path.with_name(item.path.name + ".json").write_text("{broken")
    (back,) = trash.restore(library, trash.list_trash(library.models_dir))
    assert (back.model_id, back.name) == (first.model_id, first.name)


def test_a_doctored_note_leads_nowhere(two: Library) -> None:
    """A note that names a path out of the folder is not believed."""
    library, (first, _) = two
    (item,) = trash.discard(library, [first])
    note = item.path.with_name(item.path.name + ".json")
    note.write_text(note.read_text().replace(f'"{first.file_path}"', '"../escaped.sda"'))
    (back,) = trash.restore(library, trash.list_trash(library.models_dir))
    assert "/" not in back.file_path
    assert not (library.models_dir.parent / "escaped.sda").exists()


def test_links_are_not_followed(two: Library, tmp_path: Path) -> None:
    """A trash that is a link to somewhere else is refused; a linked file in it is passed over."""
    library, (first, second) = two
    trash.discard(library, [first])
    folder = library.models_dir / trash.TRASH_FOLDER
    (folder / "link.sda").symlink_to(library.models_dir / second.file_path)
    assert len(trash.list_trash(library.models_dir)) == 1
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LibraryError, match="symbolic link"):
        trash.discard(library, [second])
    assert trash.list_trash(library.models_dir) == []
    assert library.get(second.model_id) is not None


def test_purged_and_emptied_is_gone(two: Library) -> None:
    """No file and no note is left."""
    library, (first, second) = two
    assert trash.purge(library, [first]) == 1
    trash.discard(library, [second])
    assert trash.empty(library.models_dir, trash.list_trash(library.models_dir)) == 1
    assert not list(library.models_dir.rglob("*.sda"))
    assert not (library.models_dir / trash.TRASH_FOLDER).exists()
    assert library.count() == 0


def test_an_entry_without_a_file_only_leaves_the_index(two: Library) -> None:
    """There is nothing to keep of it."""
    library, (first, _) = two
    (library.models_dir / first.file_path).unlink()
    assert trash.discard(library, [first]) == []
    assert library.count() == 1
    assert trash.list_trash(library.models_dir) == []


def test_words_that_only_the_index_has_come_back(two: Library) -> None:
    """And stay, also when the file is touched later."""
    library, (first, _) = two
    library.add_entry(replace(first, name="Warm", tags=["mine"]))
    (known,) = [entry for entry in library.entries() if entry.model_id == first.model_id]
    trash.discard(library, [known])
    assert trash.restore(library, trash.list_trash(library.models_dir)) == [known]
    library.repair_index()
    os.utime(library.models_dir / first.file_path, ns=(1, 2))
    library.repair_index()
    assert ModelLibrary(library.models_dir).get(first.model_id) == known


def test_a_taken_name_gets_what_tells_it_apart(two: Library) -> None:
    """In the entry and in the file, whose weights stay; a name that only case and spaces tell apart is taken, too."""
    library, (first, second) = two
    weights = load_model(library.models_dir / first.file_path).model.state_dict()
    trash.discard(library, [first])
    edit_model(library, second.model_id, MetadataChange(name="  MODEL   0"))
    (back,) = trash.restore(library, trash.list_trash(library.models_dir))
    assert back.name.startswith("Model 0 (")  # the moment, or else the id
    assert (back.model_id, back.file_path) == (first.model_id, first.file_path)
    again = load_model(library.models_dir / back.file_path)
    assert again.metadata.name == back.name
    assert all(torch.equal(weights[key], value) for key, value in again.model.state_dict().items())
    assert library.plan_repair().findings == ()
    assert ModelLibrary(library.models_dir).get(first.model_id) == back
    assert list((library.models_dir / trash.TRASH_FOLDER).iterdir()) == []


def test_the_name_that_another_program_gave_stays(two: Library, caplog: pytest.LogCaptureFixture) -> None:
    """Its file is not written: the model comes back as it was, and that two have its name is told, once."""
    library, (_, second) = two
    for name in ("a", "b"):
        write_model(library.models_dir / f"{name}.distill", f"id-{name}", "Theirs")
    library.repair_index()
    assert len([record for record in caplog.records if "library.names_shared" in record.getMessage()]) == 1
    theirs = library.get("id-a")
    assert theirs is not None
    before = (library.models_dir / "a.distill").read_bytes()
    trash.discard(library, [theirs])
    assert trash.restore(library, trash.list_trash(library.models_dir)) == [theirs]
    assert (library.models_dir / "a.distill").read_bytes() == before
    library.repair_index()
    assert len([record for record in caplog.records if "library.names_shared" in record.getMessage()]) == 1
    write_model(library.models_dir / "c.distill", "id-c", second.name.upper())
    library.repair_index()
    told = [record.getMessage() for record in caplog.records if "library.names_shared" in record.getMessage()]
    assert len(told) == 2
    assert second.name in told[1]
    assert {entry.name for entry in library.entries()} >= {"Theirs", second.name, second.name.upper()}


def test_a_failed_restore_with_another_name_leaves_nothing(two: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index cannot be written: trash and folder are as before, byte for byte."""
    library, (first, second) = two
    trash.discard(library, [first])
    edit_model(library, second.model_id, MetadataChange(name=first.name))
    before = {path: path.read_bytes() for path in library.models_dir.rglob("*.sda*") if path.is_file()}

    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sda_daemon.library.index_file.write_index", full)
        with pytest.raises(OSError, match="No space"):
            trash.restore(library, trash.list_trash(library.models_dir))
    assert {path: path.read_bytes() for path in library.models_dir.rglob("*.sda*") if path.is_file()} == before
    assert library.get(first.model_id) is None


@pytest.mark.parametrize("is_renamed", [False, True], ids=["its own id", "an id that only the index had"])
def test_a_crash_between_index_and_file_loses_no_words(two: Library, is_renamed: bool) -> None:
    """The index has lost the model, or has it not yet, and the file is in the folder: the note tells what it was."""
    library, (first, second) = two
    entry = replace(first, name="Warm", tags=["mine"], model_id="other" if is_renamed else first.model_id)
    library.remove(first.model_id)
    library.add_entry(entry, said="")
    library.set_fields(entry.model_id, (("stars", '"stars":  5'),))
    known = library.get(entry.model_id)
    assert known is not None
    (item,) = trash.discard(library, [known])
    item.path.rename(library.models_dir / known.file_path)  # as it is before the one, and after the other
    again = ModelLibrary(library.models_dir)
    again.repair_index()
    assert again.get(entry.model_id) == known
    assert again.fields_of(entry.model_id) == (("stars", '"stars":  5'),)
    assert list((library.models_dir / trash.TRASH_FOLDER).iterdir()) == []
    assert sorted(item.model_id for item in again.entries()) == sorted([entry.model_id, second.model_id])


def test_an_old_note_is_not_believed(two: Library) -> None:
    """A crash after a model was back left its note: when it is adopted again, it is what its file says by then."""
    library, (first, second) = two
    (item,) = trash.discard(library, [first])
    note = item.path.with_name(item.path.name + ".json")
    text = note.read_text()
    trash.restore(library, trash.list_trash(library.models_dir))
    note.write_text(text)
    write_model(library.models_dir / "new.sda")
    library.repair_index()  # looks into the trash because something is adopted
    assert not note.exists()
    note.write_text(text)
    library.remove(first.model_id)
    edited = replace(first, final_val_loss=7.5)
    write_model(library.models_dir / first.file_path, first.model_id, "Another", final_val_loss=edited.final_val_loss)
    library.repair_index()
    found = library.get(first.model_id)
    assert found is not None
    assert (found.name, found.final_val_loss) == ("Another", 7.5)
    assert library.get(second.model_id) == second


def test_no_repair_sees_what_is_between(two: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that repairs while models go into the trash waits until they are there."""
    library, (first, _) = two
    other = ModelLibrary(library.models_dir, lock_timeout_s=0)
    renamed = Path.rename
    seen: list[str] = []

    def rename(path: Path, target: Path) -> Path:
        if path.name == first.file_path:
            with pytest.raises(LibraryBusyError):
                other.repair_index()
            seen.append(path.name)
        return renamed(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    trash.discard(library, [first])
    assert seen == [first.file_path]
    assert other.repair_index() == (0, 0)
