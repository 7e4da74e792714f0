"""What makes the index agree with its folder: time is an argument, and nothing is watched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.keeper import GRACE_S, REPAIR_DELAY_S, Keeper
from tests.library.model_files import write_model

INTERVAL_S = 300.0


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """Five models."""
    library = ModelLibrary(tmp_path / "models")
    library.add_entries([write_model(library.models_dir / f"{name}.sda") for name in "abcde"])
    return library


@pytest.fixture
def keeper(library: ModelLibrary) -> Keeper:
    """Theirs, which has just begun."""
    keeper = Keeper(library, lambda _hint: None, INTERVAL_S)
    keeper.start(100.0, live=False)
    return keeper


def test_an_outside_change_is_given_time(library: ModelLibrary, keeper: Keeper) -> None:
    """Then the index is repaired; and without any sign of a change it is looked at now and then."""
    assert keeper.next_moment() == 100.0 + INTERVAL_S
    write_model(library.models_dir / "new.sda")
    keeper.touched(110.0)
    assert keeper.next_moment() == 110.0 + REPAIR_DELAY_S
    keeper.poll(110.5)
    assert library.count() == 5
    keeper.poll(110.0 + REPAIR_DELAY_S)
    assert library.count() == 6
    write_model(library.models_dir / "unnoticed.sda")
    keeper.poll(keeper.next_moment())
    assert library.count() == keeper.count() == 7
    assert keeper.looks == 3


def test_a_missing_file_may_come_back(library: ModelLibrary, keeper: Keeper) -> None:
    """Its entry goes when it has been missing for as long as it takes to replace one, and not sooner."""
    path = library.models_dir / "a.sda"
    content = path.read_bytes()
    path.unlink()
    keeper.repair(200.0)
    assert library.count() == 5
    assert keeper.next_moment() == 200.0 + GRACE_S
    path.write_bytes(content)
    keeper.poll(200.0 + GRACE_S)
    assert library.count() == 5
    path.unlink()
    keeper.repair(300.0)
    keeper.poll(300.0 + GRACE_S)
    assert library.count() == 4


def test_most_models_gone_at_once(library: ModelLibrary, keeper: Keeper) -> None:
    """That is rather a disk that is not mounted: the index stays as it is, however long it takes."""
    for name in "abcd":
        (library.models_dir / f"{name}.sda").unlink()
    for now in (200.0, 300.0, 400.0):
        keeper.repair(now)
    assert library.count() == 5
    assert not keeper.is_lost


def test_a_folder_that_is_gone_and_comes_back(library: ModelLibrary, keeper: Keeper) -> None:
    """Meanwhile nothing is repaired, and it is known how many models there were."""
    away = library.models_dir.with_name("away")
    library.models_dir.rename(away)
    assert not keeper.supervise(200.0)
    assert keeper.problem == "it is gone"
    keeper.repair(201.0)
    assert keeper.count() == 5
    away.rename(library.models_dir)
    assert not keeper.supervise(210.0)
    assert not keeper.is_lost
    assert keeper.next_moment() == 210.0 + REPAIR_DELAY_S


def test_an_empty_folder_in_its_place(library: ModelLibrary, keeper: Keeper) -> None:
    """As under a mount point."""
    library.models_dir.rename(library.models_dir.with_name("away"))
    library.models_dir.mkdir()
    assert not keeper.supervise(200.0)
    assert keeper.problem == "an empty folder has its name"
    keeper.repair(201.0)
    assert list(library.models_dir.iterdir()) == []


def test_another_library_in_its_place(library: ModelLibrary, keeper: Keeper) -> None:
    """Everything must begin anew: the locks are those of the old folder."""
    library.models_dir.rename(library.models_dir.with_name("away"))
    shutil.copytree(library.models_dir.with_name("away"), library.models_dir)
    assert keeper.supervise(200.0)


def test_another_interval(keeper: Keeper) -> None:
    """It is in force from the next look on."""
    keeper.configure(10.0)
    assert keeper.next_moment() == 100.0 + INTERVAL_S
    keeper.repair(200.0)
    assert keeper.next_moment() == 210.0
