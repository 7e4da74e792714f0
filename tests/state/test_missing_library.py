"""When a bare models folder is taken to be lost, and when it is what it seems."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sda_daemon.library import ModelLibrary
from sda_daemon.state.ledger import LEDGER_FILE_NAME, Ledger
from sda_daemon.state.missing_library import filled, find_missing_library, forget_missing_library, is_forgotten
from tests.library.model_files import entry


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An empty models folder, and a state folder whose ledger says that it had 3 models."""
    models_dir, state_dir = tmp_path / "models", tmp_path / "state"
    models_dir.mkdir()
    record(state_dir, models_dir, 3)
    return models_dir, state_dir


def record(state_dir: Path, models_dir: Path, models: int) -> None:
    with contextlib.closing(Ledger(state_dir)) as ledger:
        ledger.report(filled(models_dir, models))


def test_a_bare_folder_is_lost(folders: tuple[Path, Path]) -> None:
    """Empty, with an empty index, or not there: it says which, and how much is missing."""
    models_dir, state_dir = folders
    assert str(find_missing_library(models_dir, state_dir)) == "it is empty, but had 3 models when the daemon last ran"
    ModelLibrary(models_dir)
    assert str(find_missing_library(models_dir, state_dir)) == "it is empty, but had 3 models when the daemon last ran"
    shutil.rmtree(models_dir)
    assert (
        str(find_missing_library(models_dir, state_dir)) == "it is not there, but had 3 models when the daemon last ran"
    )
    assert not models_dir.exists()


def test_a_link_to_nowhere_is_lost(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The configured path is a link into a disk that is not mounted; linked elsewhere, it is another folder."""
    models_dir, state_dir = folders
    link = tmp_path / "link"
    link.symlink_to(models_dir)
    assert find_missing_library(link, state_dir) is not None
    models_dir.rmdir()
    assert find_missing_library(link, state_dir) is not None
    link.unlink()
    (tmp_path / "new").mkdir()
    link.symlink_to(tmp_path / "new")
    assert find_missing_library(link, state_dir) is None


def add(folder: Path) -> None:
    ModelLibrary(folder).add_entry(entry(1))


def add_and_remove(folder: Path) -> None:
    add(folder)
    assert ModelLibrary(folder).remove(entry(1).model_id)


def replace_by_file(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


SIGNS: dict[str, Callable[[Path], object]] = {
    "a model": lambda folder: (folder / "x.sda").touch(),
    "an index with entries": add,
    "an index whose models were removed": add_and_remove,
    "a broken index": lambda folder: (folder / "model_library.json").write_text("{"),
    "no folder": replace_by_file,
}


@pytest.mark.parametrize("sign", SIGNS)
def test_with_a_sign_of_a_library_none_is_missing(folders: tuple[Path, Path], sign: str) -> None:
    """What is left of a library shows that its folder is there; what is wrong with it is for others to say."""
    models_dir, state_dir = folders
    SIGNS[sign](models_dir)
    assert find_missing_library(models_dir, state_dir) is None


def test_few_models_are_not_missing(folders: tuple[Path, Path]) -> None:
    """Two may have been deleted by hand; a command that asks may want to know of them all the same."""
    models_dir, state_dir = folders
    record(state_dir, models_dir, 2)
    assert find_missing_library(models_dir, state_dir) is None
    assert find_missing_library(models_dir, state_dir, at_least=1) is not None
    record(state_dir, models_dir, 1)
    assert (
        str(find_missing_library(models_dir, state_dir, 1)) == "it is empty, but had 1 model when the daemon last ran"
    )


def test_without_a_ledger_nothing_is_known(folders: tuple[Path, Path]) -> None:
    """No ledger, a broken one, one of another folder, one that lies in the folder itself."""
    models_dir, state_dir = folders
    record(state_dir, models_dir.with_name("other"), 3)
    assert find_missing_library(models_dir, state_dir) is None
    (state_dir / LEDGER_FILE_NAME).write_bytes(b"no database" * 1000)
    assert find_missing_library(models_dir, state_dir) is None
    shutil.rmtree(state_dir)
    assert find_missing_library(models_dir, state_dir) is None
    assert not state_dir.exists()
    inside = models_dir / "deep" / "state"
    record(inside, models_dir, 3)
    assert find_missing_library(models_dir, inside) is None


def test_what_a_person_says_ends_it(folders: tuple[Path, Path]) -> None:
    """Forgotten until the daemon fills the folder again."""
    models_dir, state_dir = folders
    missing = find_missing_library(models_dir, state_dir)
    assert missing is not None
    forget_missing_library(missing)
    assert find_missing_library(models_dir, state_dir, at_least=1) is None
    with contextlib.closing(Ledger(state_dir)) as ledger:
        assert is_forgotten(ledger, models_dir)
        assert not is_forgotten(ledger, models_dir.with_name("other"))
    record(state_dir, models_dir, 3)
    assert find_missing_library(models_dir, state_dir) is not None
    with contextlib.closing(Ledger(state_dir)) as ledger:
        assert not is_forgotten(ledger, models_dir)
