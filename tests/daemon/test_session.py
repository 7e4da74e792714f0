"""One life of the daemon, turn by turn: no process, no clock, no thread; the test is the engine and the time."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.conversion.job import Failed
from sda_daemon.conversion.queue import FINISHING, GATHER_S
from sda_daemon.daemon.heartbeat import Heartbeat
from sda_daemon.daemon.inbox import Inbox
from sda_daemon.daemon.messages import Message, RetryRequested, StopRequested
from sda_daemon.daemon.session import Ending, Session
from sda_daemon.daemon.setup import Process
from sda_daemon.daemon.snapshot import Tally
from sda_daemon.errors import AlreadyRunningError, LibraryLostError, NothingToWatchError
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.service.notify import Notifier
from sda_daemon.settings.loading import LoadedConfig, parse_config
from sda_daemon.settings.reload import ConfigFile, ConfigTouched
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.locks import INSTANCE_LOCK_NAME, instance_lock
from sda_daemon.state.missing_library import STAND_IN_NAME
from sda_daemon.state.policy import Status
from sda_daemon.watching.hints import FileSeen, LibraryTouched, RescanNeeded
from tests.conversion.stepwise import StepwisePool
from tests.library.model_files import write_model

SETTLE_S = 2.0


class Bench:
    """Real folders, checkpoints, library and ledger, over which one session after another lives."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.drop, self.models = folder, folder / "drop", folder / "models"
        self.drop.mkdir()
        self.pool = StepwisePool()
        self.settings = settings
        self.inbox = Inbox()

    def write_config(self) -> bytes:
        """Write the config file as it is to be now."""
        watch = {"path": str(self.drop), "settle_s": SETTLE_S, **self.settings}
        text = f"{{models_dir: {self.models}, state_dir: {self.folder / 'state'}, workers: 1, watch: [{watch}]}}"
        content = text.replace("'", '"').encode()
        (self.folder / "config.yaml").write_bytes(content)
        return content

    def config(self) -> LoadedConfig:
        return parse_config(self.write_config(), self.folder / "config.yaml", {})

    @contextlib.contextmanager
    def life(self, *, once: bool = True) -> Iterator[Session]:
        config = self.config()
        heartbeat = Heartbeat(Notifier())
        process = Process(
            ConfigFile(config, {}),
            heartbeat,
            self.folder / "state",
            "2026-01-01",
            once=once,
            make_pool=lambda _settings, _inbox: self.pool,
        )
        with contextlib.ExitStack() as stack:
            self.inbox = Inbox()
            stack.callback(self.inbox.close)
            yield Session(stack, process, config, self.inbox, Tally(), 0.0, is_first=True)

    def turn(self, session: Session, now: float, *messages: Message) -> None:
        """Let it take what is in its inbox, and more."""
        session.turn([*self.inbox.take(0.0), *messages], now)

    def convert_all(self, session: Session, *moments: float) -> None:
        """Let it turn at some moments, and convert what it begins, one a turn."""
        for now in moments:
            self.turn(session, now)
            if self.pool.waiting:
                self.pool.convert_next()

    def statuses(self) -> dict[str, Status]:
        with contextlib.closing(Ledger(self.folder / "state", owned=False)) as ledger:
            return {Path(row.path).name: row.status for row in ledger.of_status(*Status)}

    def published(self, key: str) -> Any:
        with contextlib.closing(Ledger(self.folder / "state", owned=False)) as ledger:
            return ledger.reported()[key]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """One of each."""
    return Bench(tmp_path)


Drop = Callable[..., Path]


def test_the_way_of_a_checkpoint(bench: Bench, drop: Drop) -> None:
    """Found, settled, begun, ended, published, remembered; and `status` shows where it is."""
    drop(bench.drop / "rain" / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 10.0)
        assert bench.published("settling")["count"] == 1
        assert bench.pool.waiting == []
        bench.turn(session, 10.0 + SETTLE_S)
        assert bench.published("converting") == [str(bench.drop / "rain" / "a.pt")]
        assert bench.statuses() == {"a.pt": Status.CONVERTING}
        assert ModelLibrary(bench.models).count() == 0
        bench.pool.convert_next()
        bench.turn(session, 20.0)
        assert bench.statuses() == {"a.pt": Status.DONE}
        assert [entry.name for entry in ModelLibrary(bench.models).entries()] == ["rain epoch 7"]
        assert bench.published("library")["models"] == 1
        assert (session.tally.succeeded, session.tally.newest_at) == (1, 20.0)
        assert session.run() is Ending.ALL_DONE


def test_a_stop_begins_nothing_more(bench: Bench, drop: Drop) -> None:
    """What has ended is published in the same turn; what waits is found again by the next life."""
    for seed in (1, 2, 3):
        drop(bench.drop / f"{seed}.pt", seed)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        assert len(bench.pool.waiting) == 1
        bench.pool.convert_next()
        bench.turn(session, 5.0, StopRequested("SIGTERM"))
        assert session.run() is Ending.STOPPED
        assert len(bench.pool.waiting) == 0
        assert ModelLibrary(bench.models).count() == 1
    with bench.life() as session:
        bench.convert_all(session, 0.0, SETTLE_S, 5.0, 6.0)
        bench.turn(session, 7.0)
        assert ModelLibrary(bench.models).count() == 3


def test_a_stop_warms_nothing_up(bench: Bench, drop: Drop) -> None:
    """Nor does it look at anything: whoever stops waits for it."""
    drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0, StopRequested("SIGTERM"))
        assert bench.pool.warmed == 0
        assert session.run() is Ending.STOPPED


def test_what_comes_to_be_waiting_begins_at_once(bench: Bench, drop: Drop) -> None:
    """Another content of a path waits for the one before: when that has ended, nothing else need happen."""
    path = drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        drop(path, 2)
        bench.turn(session, 3.0, FileSeen(str(bench.drop), str(path), False))
        bench.turn(session, 3.0 + SETTLE_S)
        assert len(bench.pool.waiting) == 1
        bench.pool.convert_next()
        bench.turn(session, 6.0)
        assert session.pause_s(6.0) == 0.0
        bench.turn(session, 6.0)
        assert len(bench.pool.waiting) == 1
        assert session.pause_s(6.0) > 1.0, "now it waits for a worker"


def test_a_full_disk_queue_goes_on(bench: Bench, drop: Drop) -> None:
    """As many as may be on their way to the disk are; when all have ended, the others begin without a word."""
    for number in range(FINISHING + 3):
        drop(bench.drop / f"{number}" / "x.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        late: list[Callable[[], None]] = []
        while bench.pool.waiting:
            late.append(bench.pool.free_next())
            bench.turn(session, 3.0)
        assert len(late) == FINISHING + 1
        for end in late:
            end()
        bench.turn(session, 4.0)
        assert session.pause_s(4.0) == 0.0
        bench.turn(session, 4.0)
        assert len(bench.pool.waiting) == 1


def test_a_model_that_has_gone_while_its_checkpoint_was_converted(bench: Bench, drop: Drop) -> None:
    """It is made again, and at once."""
    path = drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        bench.pool.convert_next()
        bench.turn(session, 5.0)
        os.utime(path, ns=(1, 1))
        bench.turn(session, 6.0, FileSeen(str(bench.drop), str(path), False))
        bench.turn(session, 6.0 + SETTLE_S)
        bench.pool.convert_next()  # it says that the library has it
        library = ModelLibrary(bench.models)
        (entry,) = library.entries()
        library.remove(entry.model_id)
        (bench.models / entry.file_path).unlink()
        bench.turn(session, 9.0)
        assert session.pause_s(9.0) == 0.0
        bench.turn(session, 9.0)
        bench.pool.convert_next()
        bench.turn(session, 10.0)
        assert ModelLibrary(bench.models).count() == 1


def test_late_news_of_an_earlier_life_goes_nowhere(bench: Bench, drop: Drop) -> None:
    """A file that comes to the disk after its life has ended: its work folder is gone, and so is its inbox."""
    drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        assert len(bench.pool.waiting) == 1
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        bench.pool.end_next(lambda job: Failed(job, "stopped", False, "the daemon was stopped"))
        assert bench.inbox.is_empty, "it was the earlier life's"
        bench.turn(session, 5.0)
        assert bench.statuses() == {"a.pt": Status.CONVERTING}
        bench.pool.convert_next()
        bench.turn(session, 6.0)
        assert bench.statuses() == {"a.pt": Status.DONE}


def test_a_file_that_changes_while_it_is_converted(bench: Bench, drop: Drop) -> None:
    """It is looked at again in the next turn, and settles anew."""
    path = drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        drop(path, 2)
        bench.pool.convert_next()
        bench.turn(session, 5.0)
        assert bench.pool.waiting == []
        bench.turn(session, 6.0)
        assert bench.published("settling")["count"] == 1
        bench.turn(session, 6.0 + SETTLE_S)
        bench.pool.convert_next()
        bench.turn(session, 10.0)
        assert bench.statuses() == {"a.pt": Status.DONE}
        assert ModelLibrary(bench.models).count() == 1


def test_another_models_folder_while_a_conversion_runs(bench: Bench, drop: Drop) -> None:
    """It ends where it began; what comes later goes to the other one; and then the first one is free for others."""
    drop(bench.drop / "a.pt", 1)
    with bench.life(once=False) as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        first, bench.models = bench.models, bench.folder / "second"
        bench.write_config()
        drop(bench.drop / "b.pt", 2)
        for now in (10.0, 10.5, 11.0):
            bench.turn(session, now, ConfigTouched())
        assert session.config.settings.models_dir == bench.models
        bench.turn(session, 11.0 + SETTLE_S)
        with pytest.raises(AlreadyRunningError), instance_lock(first):
            pass
        bench.pool.convert_next()
        bench.turn(session, 14.0)
        bench.turn(session, 14.0 + GATHER_S)
        assert (ModelLibrary(first).count(), ModelLibrary(bench.models).count()) == (1, 0)
        with instance_lock(first):
            pass
        bench.pool.convert_next()
        bench.turn(session, 15.0)
        assert (ModelLibrary(first).count(), ModelLibrary(bench.models).count()) == (1, 1)


def test_a_config_that_is_refused_changes_nothing(bench: Bench) -> None:
    """Its models folder cannot be taken: what was in force stays, and why is known."""
    with bench.life(once=False) as session:
        bench.turn(session, 0.0)
        before, bench.models = bench.models, bench.folder / "config.yaml" / "models"
        bench.write_config()
        for now in (10.0, 10.5, 11.0):
            bench.turn(session, now, ConfigTouched())
        assert session.config.settings.models_dir == before
        assert bench.published("daemon")["config_state"]["error"] != ""


def test_a_lock_that_someone_has_removed(bench: Bench) -> None:
    """A restored backup may sweep it away: the life ends, and the next one takes it anew."""
    with bench.life(once=False) as session:
        bench.turn(session, 0.0)
        (bench.models / INSTANCE_LOCK_NAME).unlink()
        bench.turn(session, 1.0)
        assert session.run() is Ending.BEGIN_ANEW
    with bench.life(once=False) as session:
        bench.turn(session, 0.0)
        bench.turn(session, 10.0, StopRequested("SIGTERM"))
        assert session.run() is Ending.STOPPED


def test_a_second_stop_does_not_wait(bench: Bench, drop: Drop) -> None:
    """What runs is cut off, and costs no attempt."""
    drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        bench.turn(session, 5.0, StopRequested("SIGTERM"))
        bench.inbox.put(StopRequested("SIGINT"))
        assert session.run() is Ending.STOPPED
    with contextlib.closing(Ledger(bench.folder / "state", owned=False)) as ledger:
        (row,) = ledger.of_status(*Status)
    assert (row.status, row.attempts) == (Status.FAILED, 0)


def test_a_failure_is_counted_and_the_source_stays(tmp_path: Path, drop: Drop) -> None:
    """Also where it were deleted after a conversion."""
    bench = Bench(tmp_path, after="delete")
    path = drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        bench.pool.end_next(lambda job: Failed(job, "damaged", True, "a bit has flipped"))
        bench.turn(session, 5.0)
        assert bench.statuses() == {"a.pt": Status.REFUSED}
        assert session.tally.failed == 1
        assert path.exists()
        assert session.run() is Ending.ALL_DONE


def test_what_others_do_to_the_library(bench: Bench) -> None:
    """It is given a second, and then it is in the index."""
    with bench.life() as session:
        bench.turn(session, 0.0)
        write_model(bench.models / "theirs.sda")
        bench.turn(session, 10.0, LibraryTouched())
        assert ModelLibrary(bench.models).count() == 0
        bench.turn(session, 11.5)
        assert ModelLibrary(bench.models).count() == 1


def test_a_retry_looks_at_everything(bench: Bench, drop: Drop) -> None:
    """Failures that were taken out of the ledger are found again, and only they are converted."""
    path = drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        bench.pool.end_next(lambda job: Failed(job, "crashed", False, "a signal", is_crash=True))
        bench.turn(session, 5.0)
        assert bench.statuses() == {"a.pt": Status.FAILED}
        with contextlib.closing(Ledger(bench.folder / "state", owned=False)) as ledger:
            assert ledger.reset_attempts() == [str(path)]
        bench.turn(session, 6.0, RetryRequested())
        bench.turn(session, 6.0 + SETTLE_S)
        assert len(bench.pool.waiting) == 1


def test_hints_are_hints(bench: Bench, drop: Drop) -> None:
    """A rescan of what is known already gives nothing, however often it is wanted."""
    drop(bench.drop / "a.pt", 1)
    with bench.life() as session:
        bench.turn(session, 0.0)
        bench.turn(session, SETTLE_S)
        bench.pool.convert_next()
        bench.turn(session, 5.0)
        for now in (6.0, 7.0, 20.0):
            bench.turn(session, now, RescanNeeded(str(bench.drop), "overflow"))
        assert bench.pool.waiting == []
        assert session.tally.succeeded == 1


def test_one_daemon_for_one_library(bench: Bench) -> None:
    """A second one is refused, and what it had taken until then is free again."""
    with bench.life(), pytest.raises(AlreadyRunningError), bench.life():
        pass
    with bench.life() as session:
        bench.turn(session, 0.0)


def test_a_second_start_leaves_what_stands_in_for_a_library(tmp_path: Path, drop: Drop) -> None:
    """The library is missing, and a daemon waits for it: another one is refused before it touches anything."""
    bench = Bench(tmp_path)
    for seed in (1, 2, 3):
        drop(bench.drop / f"{seed}.pt", seed)
    with bench.life() as session:
        bench.convert_all(session, 0.0, SETTLE_S, 5.0, 6.0, 7.0)
        bench.turn(session, 8.0)
    os.rename(bench.models, tmp_path / "elsewhere")
    bench.models.mkdir()
    stand_in = tmp_path / "state" / STAND_IN_NAME
    with bench.life(once=False):
        before = sorted(path.name for path in stand_in.iterdir())
        with pytest.raises(AlreadyRunningError), bench.life(once=False):
            pass
        assert sorted(path.name for path in stand_in.iterdir()) == before
    assert not stand_in.exists()


def test_nothing_to_watch(bench: Bench) -> None:
    """Nothing is made or locked then."""
    bench.drop.rmdir()
    with pytest.raises(NothingToWatchError), bench.life():
        pass
    assert not bench.models.exists()
    assert not (bench.folder / "state").exists()


def test_a_library_that_is_not_mounted(bench: Bench, drop: Drop) -> None:
    """A run that ends does not wait for it, and puts nothing there."""
    for seed in (1, 2, 3):
        drop(bench.drop / f"{seed}.pt", seed)
    with bench.life() as session:
        bench.convert_all(session, 0.0, SETTLE_S, 5.0, 6.0, 7.0)
    os.rename(bench.models, bench.folder / "elsewhere")
    bench.models.mkdir()
    with pytest.raises(LibraryLostError), bench.life():
        pass
    assert list(bench.models.iterdir()) == []


def test_a_turn_fits_on_one_screen() -> None:
    """It is the place where the way of a checkpoint can be read."""
    assert len(inspect.getsource(Session.turn).splitlines()) <= 24
