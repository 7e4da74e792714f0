"""Finished models on their way into the library: each of them alone."""

from __future__ import annotations

import errno
import itertools
import json
import math
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sda_daemon.conversion import worker
from sda_daemon.conversion.batch import BatchAction, Source, convert_batch
from sda_daemon.conversion.job import ConversionJob, Converted, Failed
from sda_daemon.conversion.pool import WorkerPool
from sda_daemon.conversion.publish import Action, failure_of, publish
from sda_daemon.errors import ForeignEntryError
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.models.header import read_model_header
from sda_daemon.models.metadata import file_name_candidates
from sda_daemon.settings.schema import MetadataSettings
from sda_daemon.signature import FileSignature, signature_at


class Shop:
    """A library, a work folder, and a worker that really converts, in this process."""

    def __init__(self, folder: Path, name: str = "{{ run }}") -> None:
        self.models = folder / "models"
        self.library = ModelLibrary(self.models)
        self.work = self.models / ".sda-work-test"
        self.work.mkdir()
        self.name = name
        self._count = 0

    def job(self, path: Path) -> ConversionJob:
        self._count += 1
        signature = signature_at(str(path))
        assert signature is not None
        metadata = MetadataSettings(name=self.name)
        return ConversionJob(str(path), signature, "", str(self.models), str(self.work), f"{self._count}.tmp", metadata)

    def convert(self, path: Path) -> Converted:
        outcome = worker.convert(self.job(path))
        assert isinstance(outcome, Converted), outcome
        return outcome

    def temporary(self, item: Converted) -> Path:
        return self.work / item.job.temporary_name

    def leftovers(self) -> list[str]:
        return [path.name for path in self.work.iterdir()]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """One of each."""
    return Shop(tmp_path)


Drop = Callable[..., Path]


def test_what_cannot_be_published_fails_alone(shop: Shop, drop: Drop, tmp_path: Path) -> None:
    """A finished file that has vanished, a folder where the file was: the others are in the library all the same."""
    paths = [drop(tmp_path / f"run{seed}" / "x.pt", seed) for seed in range(4)]
    (first,) = publish(shop.library, [shop.convert(paths[1])])
    assert first.entry is not None
    (shop.models / first.entry.file_path).unlink()
    (shop.models / first.entry.file_path).mkdir()
    finished = [shop.convert(path) for path in paths]
    shop.temporary(finished[0]).unlink()
    published = publish(shop.library, finished)
    assert [item.action for item in published] == [Action.FAILED, Action.FAILED, Action.ADDED, Action.ADDED]
    assert [type(item.error) for item in published[:2]] == [FileNotFoundError, IsADirectoryError]
    assert [(failure_of(item).kind, failure_of(item).permanent) for item in published[:2]] == [
        ("cannot_publish", False)
    ] * 2
    assert "No such file or directory" in failure_of(published[0]).message
    assert {entry.name for entry in ModelLibrary(shop.models).list_all()} == {"run1", "run2", "run3"}
    assert shop.leftovers() == []
    (again,) = publish(shop.library, [shop.convert(paths[0])])
    assert again.action is Action.ADDED


def test_what_no_index_can_hold_fails_alone(shop: Shop, drop: Drop, tmp_path: Path) -> None:
    """Metadata of another kind, before a file is touched."""
    finished = [shop.convert(drop(tmp_path / f"run{seed}" / "x.pt", seed)) for seed in range(3)]
    odd = replace(finished[1], metadata=replace(finished[1].metadata, training_epochs="seven"))  # type: ignore[arg-type]
    published = publish(shop.library, [finished[0], odd, finished[2]])
    assert [item.action for item in published] == [Action.ADDED, Action.FAILED, Action.ADDED]
    assert failure_of(published[1]).message == "ValueError: training_epochs must be a number, not 'seven'"
    assert failure_of(published[1]).is_crash, "it is not tried for ever"
    assert len(list(shop.models.glob("*.sda"))) == 2
    assert ModelLibrary(shop.models).plan_repair().findings == ()


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few files only; skips where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64m,nr_inodes=40", "tmpfs", str(disk)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def is_made(path: Path) -> bool:
    """Make an empty file, if there is room for one."""
    try:
        path.touch(exist_ok=False)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def test_a_full_disk_is_the_affair_of_all(crowded: Path, drop: Drop, tmp_path: Path) -> None:
    """Nothing is published, nothing is left lying, the index is as before; with room again all of it works."""
    shop = Shop(crowded)
    paths = [drop(tmp_path / f"run{seed}" / "x.pt", seed) for seed in range(3)]
    finished = [shop.convert(path) for path in paths]
    fillers: list[Path] = []
    while is_made(crowded / f"filler{len(fillers)}"):
        fillers.append(crowded / f"filler{len(fillers)}")
    before = (shop.models / "model_library.json").read_bytes()
    with pytest.raises(OSError, match="No space left"):
        publish(shop.library, finished)
    assert (shop.models / "model_library.json").read_bytes() == before
    assert (list(shop.models.glob("*.sda")), shop.leftovers()) == ([], [])
    for filler in fillers:
        filler.unlink()
    published = publish(shop.library, [shop.convert(path) for path in paths])
    assert [item.action for item in published] == [Action.ADDED] * 3


def test_a_name_that_ten_thousand_have(shop: Shop, drop: Drop, tmp_path: Path) -> None:
    """The next two models of this name get theirs by their ids, and not after ten thousand tries."""
    shop.name = "Rain"
    for name in itertools.islice(file_name_candidates("Rain"), 10_000):
        (shop.models / name).mkdir()
    finished = [shop.convert(drop(tmp_path / f"run{seed}" / "x.pt", seed)) for seed in range(2)]
    published = publish(shop.library, finished)
    for item in published:
        assert item.entry is not None
        assert item.entry.file_path == f"rain_{item.entry.model_id[:8]}.sda"
        assert shop.library.holds(item.entry.model_id)


def test_an_entry_that_leads_out_of_the_folder_is_not_followed(shop: Shop, drop: Drop, tmp_path: Path) -> None:
    """A doctored index: the model of these weights "is" a file elsewhere. Both stay, and what to do is told."""
    path = drop(tmp_path / "run" / "x.pt", 1)
    (first,) = publish(shop.library, [shop.convert(path)])
    assert first.entry is not None
    precious = tmp_path / "precious.sda"
    precious.write_text("precious")
    data = json.loads(shop.library.index_path.read_bytes())
    data["models"][first.entry.model_id]["file_path"] = "../precious.sda"
    shop.library.index_path.write_text(json.dumps(data))
    shop.library.refresh()
    before = shop.library.index_path.read_bytes()
    done = worker.convert(shop.job(path))
    assert precious.read_text() == "precious"
    assert isinstance(done, Failed)
    assert "models repair" in str(done)
    assert shop.library.index_path.read_bytes() == before


def test_an_entry_of_others_that_came_meanwhile_fails_one_alone(shop: Shop, drop: Drop, tmp_path: Path) -> None:
    """Something of another program stands under a finished model's id: that stays, and the others are published."""
    made = shop.convert(drop(tmp_path / "run" / "x.pt", 1))
    other = shop.convert(drop(tmp_path / "other" / "x.pt", 2))
    entry = ModelEntry.from_metadata(made.metadata, "../precious.sda", 8)
    shop.library.index_path.write_text(json.dumps({"version": 1, "models": {entry.model_id: entry.to_dict()}}))
    failed, good = publish(shop.library, [made, other])
    assert (failed.action, type(failed.error)) == (Action.FAILED, ForeignEntryError)
    assert (failure_of(failed).kind, failure_of(failed).permanent) == ("cannot_publish", False)
    assert good.action is Action.ADDED
    assert [path.name for path in shop.models.glob("*.sda")] == ["other.sda"]
    assert json.loads(shop.library.index_path.read_bytes())["models"][entry.model_id] == entry.to_dict()
    assert shop.leftovers() == []


def test_odd_words_of_an_index_do_not_get_into_a_file(shop: Shop, drop: Drop, tmp_path: Path) -> None:
    """A model that is made again keeps what a person wrote, but no value that would make its file unreadable."""
    path = drop(tmp_path / "run" / "x.pt", 1)
    (first,) = publish(shop.library, [shop.convert(path)])
    assert first.entry is not None
    data = json.loads(shop.library.index_path.read_bytes())
    odd = {"name": "mine", "description": None, "dataset_file_count": math.nan, "dataset_name": "x" * 200_000}
    data["models"][first.entry.model_id].update(odd)
    shop.library.index_path.write_text(json.dumps(data))
    shop.library.refresh()
    drop(path, 1, with_analysis=True)
    (again,) = publish(shop.library, [shop.convert(path)])
    assert again.action is Action.UPDATED
    metadata = read_model_header(shop.models / first.entry.file_path).metadata
    assert (metadata.name, metadata.description, metadata.dataset_file_count) == ("mine", "", 0)
    assert metadata.dataset_name == "run"


def test_a_batch_tells_of_each(tmp_path: Path, drop: Drop) -> None:
    """`convert` of four: one whose place a folder has taken, one that is not there, two that become models."""
    shop = Shop(tmp_path)
    paths = [drop(tmp_path / f"run{seed}" / "x.pt", seed) for seed in range(3)]
    (first,) = publish(shop.library, [shop.convert(paths[0])])
    assert first.entry is not None
    (shop.models / first.entry.file_path).unlink()
    (shop.models / first.entry.file_path).mkdir()

    def make_job(source: Source, signature: FileSignature, temporary_name: str) -> ConversionJob:
        return replace(shop.job(Path(source.path)), signature=signature, temporary_name=temporary_name)

    pool = WorkerPool(1, 300.0, None)
    try:
        sources = [Source(str(path)) for path in (*paths, tmp_path / "none.pt")]
        results = {result.path: result for result in convert_batch(sources, shop.library, pool, make_job, 4)}
    finally:
        pool.close()
    assert [results[str(path)].action for path in paths] == [BatchAction.FAILED, BatchAction.ADDED, BatchAction.ADDED]
    failed = results[str(paths[0])]
    assert (failed.cause, "Is a directory" in failed.reason) == ("cannot_publish", True)
    assert results[str(tmp_path / "none.pt")].cause == "missing"


def test_a_dry_run_gives_each_its_own_name(tmp_path: Path, drop: Drop) -> None:
    """Three models of one name beside a file that has it: the names that a real run would give."""
    shop = Shop(tmp_path, name="Rain")
    (shop.models / "rain.sda").write_bytes(b"someone else's")
    before = sorted(path.name for path in shop.models.iterdir())
    sources = [Source(str(drop(tmp_path / f"run{seed}" / "x.pt", seed))) for seed in range(3)]

    def make_job(source: Source, signature: FileSignature, _temporary_name: str) -> ConversionJob:
        return replace(shop.job(Path(source.path)), signature=signature, temporary_name="")

    pool = WorkerPool(1, 300.0, None)
    try:
        results = list(convert_batch(sources, shop.library, pool, make_job, 4))
    finally:
        pool.close()
    names = sorted(result.entry.file_path for result in results if result.entry is not None)
    assert names == ["rain_1.sda", "rain_2.sda", "rain_3.sda"]
    assert sorted(path.name for path in shop.models.iterdir()) == before
