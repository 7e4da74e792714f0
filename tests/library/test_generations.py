"""b32: models of every generation are members of the library like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sda_daemon.errors import AmbiguousModelError, NotAModelError
from sda_daemon.library import ModelLibrary, trash
from sda_daemon.library.lookup import find_entry
from sda_daemon.library.repair import FindingKind
from sda_daemon.library.scan import has_models
from sda_daemon.models import delete_model
from sda_daemon.models.formats import FORMATS
from sda_daemon.models.header import read_model_header
from tests.library.model_files import write_model

ENDINGS = [item.ending for item in FORMATS]


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """A library with one model of each generation, none of them added by hand."""
    library = ModelLibrary(tmp_path / "models")
    for number, ending in enumerate(ENDINGS):
        write_model(library.models_dir / f"m{number}{ending}", name=f"Model {number}")
    assert library.repair_index() == (0, 3)
    return library


def files(library: ModelLibrary) -> list[str]:
    return sorted(entry.file_path for entry in ModelLibrary(library.models_dir).list_all())


def test_b32_all_are_adopted_listed_and_found(library: ModelLibrary) -> None:
    """By name, by text, by file, with and without the ending."""
    assert files(library) == ["m0.sda", "m1.distill", "m2.distillgan"]
    assert library.plan_repair().findings == ()
    assert [entry.file_path for entry in library.search("model 1")] == ["m1.distill"]
    entries = library.list_all()
    for number, ending in enumerate(ENDINGS):
        assert find_entry(entries, f"m{number}").file_path == f"m{number}{ending}"
        assert find_entry(entries, f"m{number}{ending}").name == f"Model {number}"
        path = str(library.models_dir / f"m{number}{ending}")
        assert find_entry(entries, path, library.models_dir).name == f"Model {number}"


def test_b32_two_files_that_only_differ_in_their_ending(library: ModelLibrary) -> None:
    """A name without ending fits both, and both are named."""
    write_model(library.models_dir / "m0.distill", "other", "Other")
    library.repair_index()
    with pytest.raises(AmbiguousModelError, match=r"m0\.sda[\s\S]*m0\.distill|m0\.distill[\s\S]*m0\.sda"):
        find_entry(library.list_all(), "m0")
    assert find_entry(library.list_all(), "m0.distill").name == "Other"


@pytest.mark.parametrize("number", range(3))
def test_b32_each_is_repaired(library: ModelLibrary, number: int) -> None:
    """Renamed, copied, changed, deleted: as with any other."""
    folder, ending = library.models_dir, ENDINGS[number]
    (folder / f"m{number}{ending}").rename(folder / f"renamed{ending}")
    assert library.repair_index() == (1, 1)
    renamed = library.get(f"id-of-m{number}")
    assert renamed is not None
    assert renamed.file_path == f"renamed{ending}"
    shutil.copyfile(folder / f"renamed{ending}", folder / f"a_copy{ending}")
    assert library.repair_index() == (0, 1)
    write_model(folder / f"renamed{ending}", f"id-of-m{number}", "New name")
    assert [finding.kind for finding in library.plan_repair().findings] == [FindingKind.CHANGED]
    assert library.repair_index() == (0, 0)
    (folder / f"renamed{ending}").unlink()
    assert [finding.kind for finding in library.plan_repair().findings] == [FindingKind.MISSING]


@pytest.mark.parametrize("number", range(3))
def test_b32_each_goes_into_the_trash_and_back(library: ModelLibrary, number: int) -> None:
    """Under its ending, also where its old name is taken by then."""
    folder, name = library.models_dir, f"m{number}{ENDINGS[number]}"
    content = (folder / name).read_bytes()
    (entry,) = [entry for entry in library.list_all() if entry.file_path == name]
    (item,) = trash.discard(library, [entry])
    assert item.path.name.endswith(ENDINGS[number])
    assert library.count() == 2
    write_model(folder / name, "another", "Another")
    library.repair_index()
    (back,) = trash.restore(library, trash.list_trash(folder))
    assert back.file_path == f"model_{number}{ENDINGS[number]}"
    assert (folder / back.file_path).read_bytes() == content
    assert library.repair_index() == (0, 0)


@pytest.mark.parametrize("number", range(3))
def test_b32_each_is_deleted_for_good(library: ModelLibrary, number: int) -> None:
    """Entry and file, and nothing else."""
    assert delete_model(f"id-of-m{number}", library.models_dir)
    assert files(library) == [f"m{n}{ending}" for n, ending in enumerate(ENDINGS) if n != number]
    assert not (library.models_dir / f"m{number}{ENDINGS[number]}").exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_b32_a_folder_with_any_of_them_has_models(tmp_path: Path, ending: str) -> None:
    """It is not taken for a bare one."""
    assert not has_models(tmp_path)
    (tmp_path / "x.vqvae").touch()
    assert not has_models(tmp_path)
    (tmp_path / f"x{ending}").touch()
    assert has_models(tmp_path)


def test_b32_a_file_with_the_ending_of_another_generation(library: ModelLibrary) -> None:
    """No application would open it under this name: it is left alone, and what to do is said."""
    folder = library.models_dir
    (folder / "m1.distill").rename(folder / "wrong.sda")
    invalid, missing = library.plan_repair().findings
    assert (invalid.kind, invalid.file) == (FindingKind.INVALID, "wrong.sda")
    assert "format distill" in invalid.reason
    assert "Rename it to wrong.distill" in invalid.reason
    assert (missing.kind, missing.file) == (FindingKind.MISSING, "m1.distill")
    (folder / "wrong.sda").rename(folder / "right.distill")
    library.repair_index()
    assert files(library) == ["m0.sda", "m2.distillgan", "right.distill"]


def test_b32_a_marker_of_no_generation_is_no_model(tmp_path: Path) -> None:
    """The message names the marker that it lacks."""
    from tests.library.model_files import write_payload

    write_payload(tmp_path / "x.distill", {"format": "distill_v9", "version": 1, "metadata": {"name": "x"}})
    with pytest.raises(NotAModelError, match="it has no 'sda_model' marker, nor that of another generation"):
        read_model_header(tmp_path / "x.distill")
