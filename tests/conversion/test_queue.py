"""Between settling and the library: what is gathered, what is dropped, and in which order. Time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.conversion.clearing import Clearing
from sda_daemon.conversion.job import Converted, Failed, JobDone, WorkerFree
from sda_daemon.conversion.publisher import Publisher, Result
from sda_daemon.conversion.queue import FINISHING, GATHER_S, ConversionQueue
from sda_daemon.conversion.retention import Retention
from sda_daemon.conversion.work import RunContext
from sda_daemon.intake.settling import Settled
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.in_use import InUse
from sda_daemon.models.header import read_model_header
from sda_daemon.settings.run_config import RunConfig
from sda_daemon.settings.schema import Settings
from sda_daemon.signature import signature_at
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.policy import FIRST_PAUSE_S, JITTER, Status
from sda_daemon.watching.hints import FileSeen
from tests.conversion.stepwise import StepwisePool
from tests.daemon_process import eventually

Drop = Callable[..., Path]


class Bench:
    """Conversions with real checkpoints, a real library and a real ledger, on which the test plays the loop."""

    def __init__(self, folder: Path, *, retries: bool = False, **watch: Any) -> None:
        self.retries = retries
        self.drop = folder / "drop"
        self.drop.mkdir()
        self.work_dir = folder / "models" / ".sda-work-test"
        self.settings = Settings.model_validate(
            {"models_dir": folder / "models", "watch": [{"path": self.drop, **watch}], "workers": 1}
        )
        self.library = ModelLibrary(self.settings.models_dir)
        self.work_dir.mkdir()
        self.ledger = Ledger(folder / "state")
        self.pool = StepwisePool()
        self.inbox: list[WorkerFree | JobDone] = []
        self.begin_anew()

    def begin_anew(self) -> None:
        """A new life over the same folders."""
        in_use = InUse(None, None)
        self.context = RunContext(RunConfig.of(self.settings), self.library, self.pool, self.work_dir, in_use)
        self.queue = ConversionQueue(self.context, self.ledger, self.inbox.append, 0.0, retries=self.retries)
        self.publisher = Publisher(self.ledger, retries=self.retries)
        self.retention = Retention(self.ledger, Clearing(lambda _message: None, retries=False))

    def settle(self, path: Path) -> None:
        signature = signature_at(str(path))
        assert signature is not None
        self.queue.add([Settled(str(path), str(self.drop), signature, 0.0)], 0.0)

    def begin(self, *paths: Path) -> None:
        """Let checkpoints settle, and start as many conversions as there are workers for."""
        for path in paths:
            self.settle(path)
        self.deliver(0.0)

    def fail_next(self, now: float, kind: str = "no_space") -> Result:
        """Let the oldest job fail for a reason that may pass."""
        self.pool.end_next(lambda job: Failed(job, kind, False, "full"))
        return self.deliver(now)

    def deliver(self, now: float, *, hold: bool = False) -> Result:
        """Hand over what is in the inbox, as a session does."""
        messages, self.inbox[:] = list(self.inbox), []
        for message in messages:
            self.queue.take(message, now)
        ended = self.queue.poll(now, hold=hold).ended
        result = self.publisher.publish(ended, self.context, now)
        self.retention.remember(result)
        self.ledger.put(result.rows)
        self.retention.apply(result, self.context)
        self.queue.put_back(result.again)
        return result

    def convert(self, path: Path) -> str:
        """Bring one checkpoint all the way, and return its model's id."""
        self.begin(path)
        self.pool.convert_next()
        self.deliver(0.0)
        (row,) = [row for row in self.ledger.of_status(Status.DONE) if row.path == str(path)]
        return row.model_id

    def index_writes(self, action: Callable[[], object]) -> bool:
        """Whether the index was written by an action."""
        before = self.library.index_path.stat().st_ino, self.library.index_path.stat().st_mtime_ns
        action()
        return before != (self.library.index_path.stat().st_ino, self.library.index_path.stat().st_mtime_ns)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """One of each."""
    made = Bench(tmp_path)
    yield made
    made.ledger.close()


def test_one_alone_is_published_at_once(bench: Bench, drop: Drop) -> None:
    """There is nothing that it could share a write with."""
    bench.begin(drop(bench.drop / "a.pt", 1))
    bench.pool.convert_next()
    bench.deliver(0.0)
    assert bench.library.count() == 1
    assert bench.queue.is_idle


def test_what_ends_close_together_shares_one_write(bench: Bench, drop: Drop) -> None:
    """While there is more to come, finished models wait; the last of them, or the time, ends it."""
    bench.begin(*(drop(bench.drop / f"{seed}.pt", seed) for seed in range(3)))
    for moment in (0.0, GATHER_S / 3):
        bench.pool.convert_next()
        assert not bench.index_writes(lambda moment=moment: bench.deliver(moment))  # type: ignore[misc]
        assert len(bench.pool.waiting) == 1, "the worker has the next one already"
        assert bench.queue.next_moment() == GATHER_S
    bench.pool.convert_next()
    assert bench.index_writes(lambda: bench.deliver(GATHER_S / 2))
    assert bench.library.count() == 3
    assert all(row.status is Status.DONE for row in bench.ledger.of_status(*Status))


def test_nobody_waits_longer_than_the_gathering_time(bench: Bench, drop: Drop) -> None:
    """However long the next one takes."""
    bench.begin(*(drop(bench.drop / f"{seed}.pt", seed) for seed in range(2)))
    bench.pool.convert_next()
    bench.deliver(5.0)
    bench.deliver(5.0 + GATHER_S / 2)
    assert bench.library.count() == 0
    bench.deliver(5.0 + GATHER_S)
    assert bench.library.count() == 1
    assert len(bench.pool.waiting) == 1


def test_before_an_end_nothing_is_begun_and_nothing_waits(bench: Bench, drop: Drop) -> None:
    """What is finished is published, what is queued stays for the next start."""
    bench.begin(*(drop(bench.drop / f"{seed}.pt", seed) for seed in range(3)))
    bench.pool.convert_next()
    bench.deliver(0.0)
    bench.pool.convert_next()
    bench.deliver(0.0, hold=True)
    assert bench.library.count() == 2
    assert bench.queue.waiting + len(bench.pool.waiting) == 1


def test_a_slow_disk_is_not_buried(bench: Bench, drop: Drop) -> None:
    """Workers need not wait for the disk, but there is an end to what may be on its way to it."""
    bench.begin(*(drop(bench.drop / f"{number}" / "x.pt", 1) for number in range(FINISHING + 5)))
    freed = 0
    while bench.pool.waiting:
        bench.pool.free_next()
        bench.deliver(0.0)
        freed += 1
    assert freed == len(bench.queue.running) == FINISHING + 1


@pytest.fixture
def patient(tmp_path: Path, drop: Drop) -> Iterator[tuple[Bench, Path, float]]:
    """A bench with a checkpoint whose conversion has failed for a reason that may pass; and when it is tried again."""
    made = Bench(tmp_path, retries=True)
    path = drop(made.drop / "a.pt", 1)
    made.begin(path)
    made.fail_next(100.0)
    at = made.queue.next_moment()
    assert at is not None
    yield made, path, at
    made.ledger.close()


def test_a_pause_before_another_try(patient: tuple[Bench, Path, float]) -> None:
    """Neither waiting for a worker nor idle work: it is looked at when its time has come."""
    bench, path, at = patient
    assert FIRST_PAUSE_S * (1 - JITTER) <= at - 100.0 <= FIRST_PAUSE_S * (1 + JITTER)
    assert (bench.queue.waiting, bench.queue.is_idle) == (0, True)
    signature = signature_at(str(path))
    assert signature is not None
    assert bench.queue.is_taken(str(path), signature), "nobody else need wait for it"
    bench.deliver(at - 0.01)
    assert bench.pool.waiting == []
    bench.deliver(at)
    bench.fail_next(200.0)
    row = bench.ledger.get(str(path))
    assert row is not None
    assert (row.status, row.attempts) == (Status.FAILED, 2)
    later = bench.queue.next_moment()
    assert later is not None
    assert later - 200.0 > at - 100.0


@pytest.mark.parametrize("change", ["vanished", "changed"])
def test_a_checkpoint_that_is_another_one_after_the_pause(
    patient: tuple[Bench, Path, float], drop: Drop, change: str
) -> None:
    """One that is gone is forgotten, another content settles first."""
    bench, path, at = patient
    if change == "vanished":
        path.unlink()
    else:
        drop(path, 2)
    turn = bench.queue.poll(at)
    assert bench.pool.waiting == []
    assert (bench.ledger.get(str(path)) is None) == (change == "vanished")
    hints = () if change == "vanished" else (FileSeen(str(bench.drop), str(path), False),)
    assert turn.hints == hints
    assert bench.queue.is_idle


@pytest.mark.parametrize("how", ["retry", "another config", "settled anew"])
def test_what_ends_a_pause(patient: tuple[Bench, Path, float], how: str) -> None:
    """Someone asks for it, nobody wants it any more, or the checkpoint has settled again."""
    bench, path, at = patient
    if how == "retry":
        bench.queue.retry_now()
    elif how == "another config":
        bench.queue.configure(bench.context, lambda _root, _path: False)
    else:
        bench.settle(path)
    assert bench.queue.waiting == (how == "settled anew")
    bench.deliver(at + 1000.0)
    assert len(bench.pool.waiting) == (how == "settled anew")


def test_a_newer_content_that_waits_is_not_written_over(patient: tuple[Bench, Path, float], drop: Drop) -> None:
    """By one that is to be tried again."""
    bench, path, at = patient
    bench.deliver(at)
    drop(path, 2)
    bench.settle(path)
    bench.pool.end_next(lambda job: Failed(job, "no_space", False, "full"))
    bench.deliver(200.0)
    bench.deliver(200.0)
    (job, _, _) = bench.pool.waiting[0]
    assert job.signature == signature_at(str(path))
    assert len(bench.pool.waiting) == 1


def test_b15_a_model_is_not_replaced_while_another_path_comes_to_be_it(tmp_path: Path, drop: Drop) -> None:
    """One path is overwritten, and in the same moment another one turns out to be what was there before."""
    bench = Bench(tmp_path, on_overwrite="replace")
    path = drop(bench.drop / "a.pt", 1)
    bench.begin(path)
    bench.pool.convert_next()
    bench.deliver(0.0)
    (old,) = bench.library.list_all()
    bench.begin(drop(bench.drop / "copy.pt", 1), drop(path, 2))
    for _ in range(2):
        bench.pool.convert_next()
        bench.deliver(0.0)
    assert bench.library.count() == 2
    assert bench.library.holds(old.model_id)
    rows = {Path(row.path).name: row for row in bench.ledger.of_status(*Status)}
    assert all(bench.library.holds(row.model_id) for row in rows.values())
    bench.ledger.close()


def test_a_source_whose_model_must_be_made_again_is_not_cleared(tmp_path: Path, drop: Drop) -> None:
    """The worker knew its model, but it has vanished meanwhile; an older model of the same path is there still."""
    bench = Bench(tmp_path, after="delete")
    path = bench.drop / "a.pt"
    models = [bench.convert(drop(path, seed)) for seed in (1, 2)]
    (row,) = bench.ledger.of_status(Status.DONE)
    bench.ledger.put([replace(row, model_id=models[0])])
    bench.begin(drop(path, 2))
    bench.pool.convert_next()
    (outcome,) = [message.outcome for message in bench.inbox if isinstance(message, JobDone)]
    assert isinstance(outcome, Converted)
    assert not outcome.was_written
    gone = bench.library.get(models[1])
    assert gone is not None
    (bench.settings.models_dir / gone.file_path).unlink()
    bench.library.remove(models[1])
    bench.deliver(0.0)
    assert path.exists()
    bench.deliver(0.0)
    bench.pool.convert_next()
    bench.deliver(0.0)
    eventually(lambda: not path.exists(), "it is cleared beside the loop")
    assert bench.library.holds(models[1])
    bench.ledger.close()


def test_names_are_told_apart_also_when_both_come_at_once(tmp_path: Path, drop: Drop) -> None:
    """Two workers look before either model is there; the second gets its suffix in file and index alike."""
    bench = Bench(tmp_path)
    bench.settings = bench.settings.model_copy(update={"workers": 2})
    bench.begin_anew()
    bench.begin(drop(bench.drop / "a" / "bells" / "x.pt", 1), drop(bench.drop / "b" / "bells" / "x.pt", 2))
    bench.pool.convert_next()
    bench.pool.convert_next()
    bench.deliver(0.0)
    entries = sorted(bench.library.list_all(), key=lambda entry: len(entry.name))
    assert entries[0].name == "bells epoch 7"
    assert entries[1].name.startswith("bells epoch 7 (")
    assert [entry.file_path for entry in entries] == ["bells_epoch_7.sda", "bells_epoch_7_1.sda"]
    for entry in entries:
        header = read_model_header(bench.library.models_dir / entry.file_path)
        assert (header.metadata.name, header.metadata.model_id) == (entry.name, entry.model_id)
        assert bench.library.holds(entry.model_id)
    assert not bench.library.plan_repair().findings
    assert sorted(path.name for path in bench.work_dir.iterdir()) == []


def test_what_gives_way_leaves_its_name(tmp_path: Path, drop: Drop) -> None:
    """With `on_overwrite: replace` the new model of a path is called as the old one was."""
    bench = Bench(tmp_path, on_overwrite="replace")
    for seed in (1, 2):
        bench.convert(drop(bench.drop / "bells" / "x.pt", seed))
        (entry,) = bench.library.list_all()
        assert (entry.name, entry.file_path) == ("bells epoch 7", "bells_epoch_7.sda")
