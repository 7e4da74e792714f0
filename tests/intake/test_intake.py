"""From hints to settled checkpoints: real files and a real ledger; time is an argument, and nothing is watched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.intake import intake as module
from sda_daemon.intake.intake import Aside, Done, Found, Intake
from sda_daemon.settings.run_config import RunConfig
from sda_daemon.settings.schema import Settings
from sda_daemon.signature import FileSignature, signature_at
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.policy import LedgerRow, Status
from sda_daemon.watching.hints import FileSeen, FolderSeen, Hint, RescanNeeded

SETTLE_S = 2.0


class Bench:
    """A watched folder whose hints the test gives."""

    def __init__(self, folder: Path, ledger: Ledger, rules: list[dict[str, Any]] | None = None, **watch: Any) -> None:
        self.folder, self.ledger = folder, ledger
        self.drop = folder / "drop"
        self.drop.mkdir(exist_ok=True)
        self.taken: dict[str, FileSignature] = {}
        self.config = self.config_of(rules, **watch)
        self.intake = Intake(self.config, ledger, self.is_taken, lambda _hint: None, 0.0, live=False)

    def config_of(self, rules: list[dict[str, Any]] | None = None, **watch: Any) -> RunConfig:
        at = {"path": self.drop, "settle_s": SETTLE_S, **watch}
        values = {"models_dir": self.folder / "models", "watch": [at], "rules": rules or []}
        return RunConfig.of(Settings.model_validate(values), {"STATE_DIRECTORY": str(self.folder / "state")})

    def is_taken(self, path: str, signature: FileSignature) -> bool:
        return self.taken.get(path) == signature

    def write(self, name: str, source: Path) -> Path:
        path = self.drop / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
        return path

    def remember(self, path: Path, status: Status = Status.DONE, **facts: Any) -> None:
        signature = signature_at(str(path))
        assert signature is not None
        self.ledger.put([LedgerRow(str(path), str(self.drop), signature, status, **facts)])

    def settled(self, found: Found) -> list[str]:
        return [Path(item.path).name for item in found.settled]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A real one."""
    with closing(Ledger(tmp_path / "state")) as made:
        yield made


@pytest.fixture
def checkpoint(small_checkpoints: Callable[..., Path]) -> Path:
    """A real checkpoint."""
    return small_checkpoints(1)


def test_what_was_there_before_settles(tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """It is found by the first look, waited for, and handed over once."""
    bench = Bench(tmp_path, ledger)
    bench.write("run/a.pt", checkpoint)
    assert bench.intake.next_moment() == 0.0, "everything is to be looked at"
    assert bench.intake.poll([], 10.0) == Found()
    assert bench.intake.waiting == 1
    assert bench.intake.next_moment() == 10.0 + SETTLE_S
    found = bench.intake.poll([], 10.0 + SETTLE_S)
    assert bench.settled(found) == ["a.pt"]
    assert bench.intake.is_quiet
    assert bench.intake.poll([], 20.0) == Found()


def test_a_file_whose_writer_is_done_settles_sooner(tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """The event says so; a change begins the waiting anew."""
    bench = Bench(tmp_path, ledger)
    bench.intake.poll([], 0.0)
    path = bench.write("a.pt", checkpoint)
    bench.intake.poll([FileSeen(str(bench.drop), str(path), True)], 10.0)
    assert (bench.intake.next_moment() or 0) < 10.0 + SETTLE_S
    os.utime(path, ns=(1, 1))
    bench.intake.poll([FileSeen(str(bench.drop), str(path), False)], 10.1)
    assert bench.settled(bench.intake.poll([], 11.0)) == []
    assert bench.settled(bench.intake.poll([], 10.1 + SETTLE_S)) == ["a.pt"]


def test_what_settles_in_a_turn_is_not_seen_again_in_it(tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """A hint about a file, a folder and a rescan may come in the moment in which it settles."""
    bench = Bench(tmp_path, ledger)
    path = bench.write("run/a.pt", checkpoint)
    bench.intake.poll([], 10.0)
    root = str(bench.drop)
    hints: list[Hint] = [
        FileSeen(root, str(path), False),
        FolderSeen(root, str(path.parent)),
        RescanNeeded(root, "overflow"),
    ]
    assert bench.settled(bench.intake.poll(hints, 20.0)) == ["a.pt"]
    assert bench.intake.waiting == 0


def test_what_the_queue_has_is_left_to_it(tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """Another content of the same path is not."""
    bench = Bench(tmp_path, ledger)
    path = bench.write("a.pt", checkpoint)
    signature = signature_at(str(path))
    assert signature is not None
    bench.taken[str(path)] = signature
    bench.intake.poll([], 0.0)
    assert bench.intake.is_quiet
    os.utime(path, ns=(1, 1))
    bench.intake.poll([FileSeen(str(bench.drop), str(path), False)], 1.0)
    assert bench.intake.waiting == 1


@pytest.mark.parametrize("after", ["keep", "delete"])
def test_what_was_converted_before(after: str, tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """It is told of where it is to be deleted or moved, so that a crash in between is made up for."""
    bench = Bench(tmp_path, ledger, after=after)
    path = bench.write("a.pt", checkpoint)
    bench.remember(path)
    signature = signature_at(str(path))
    assert signature is not None
    done = (Done(str(path), str(bench.drop), signature),) if after == "delete" else ()
    assert bench.intake.poll([], 0.0) == Found(done=done)
    assert bench.intake.waiting == 0


def test_a_long_look_leaves_time_for_other_things(
    tmp_path: Path, ledger: Ledger, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many files a turn; what changes in the ledger between two turns is known in the second one."""
    monkeypatch.setattr(module, "FILES_A_TURN", 3)
    bench = Bench(tmp_path, ledger)
    paths = [bench.write(f"{number}.pt", checkpoint) for number in range(8)]
    seen = []
    for turn in range(4):
        bench.intake.poll([], turn / 10)
        seen.append(bench.intake.waiting)
        if turn == 0:
            for path in paths:
                bench.remember(path)
            assert bench.intake.next_moment() == 0.0, "there is more to look at"
    assert seen == [3, 3, 3, 3]
    assert bench.intake.next_moment() == SETTLE_S


def test_a_rescan_that_is_wanted_during_another_comes_after_it(
    tmp_path: Path, ledger: Ledger, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may have been past what has changed."""
    monkeypatch.setattr(module, "FILES_A_TURN", 2)
    bench = Bench(tmp_path, ledger)
    for number in range(3):
        bench.write(f"{number}.pt", checkpoint)
    bench.intake.poll([], 0.0)
    late = bench.write("0/late.pt", checkpoint)
    for turn in range(1, 6):
        bench.intake.poll([RescanNeeded(str(bench.drop), "overflow")] if turn == 1 else [], turn / 10)
    assert bench.intake.waiting == 4
    assert str(late) in bench.intake.settling.paths()


def test_a_rule_leaves_a_file_alone(tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """It is remembered, and looked at again under other rules."""
    bench = Bench(tmp_path, ledger, rules=[{"match": "drafts/*", "skip": True}])
    path = bench.write("drafts/a.pt", checkpoint)
    bench.intake.poll([], 0.0)
    row = ledger.get(str(path))
    assert row is not None
    assert (row.status, bench.intake.waiting) == (Status.SKIPPED, 0)
    assert not bench.intake.wants(str(bench.drop), str(path))
    bench.intake.configure(bench.config_of(), 1.0)
    bench.intake.poll([], 1.0)
    assert bench.intake.waiting == 1
    assert bench.intake.wants(str(bench.drop), str(path))


def test_files_under_private_names(tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """A crash has left them; they are told of, and never taken for checkpoints."""
    bench = Bench(tmp_path, ledger)
    private = bench.write(".a.pt.0a1b2c3d.sda-aside", checkpoint)
    assert bench.intake.poll([], 0.0) == Found(asides=(Aside(str(private), str(bench.drop)),))


def test_half_a_file_waits_without_end(tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """And keeps nothing from being quiet."""
    bench = Bench(tmp_path, ledger)
    path = bench.drop / "a.pt"
    path.write_bytes(checkpoint.read_bytes()[:-100])
    bench.intake.poll([], 0.0)
    for now in (SETTLE_S, 100.0, 1000.0):
        assert bench.intake.poll([], now) == Found()
    assert bench.intake.is_quiet
    assert list(bench.intake.settling.unfinished()) == [str(path)]
    path.write_bytes(checkpoint.read_bytes())
    bench.intake.poll([FileSeen(str(bench.drop), str(path), True)], 1001.0)
    assert bench.settled(bench.intake.poll([], 1010.0)) == ["a.pt"]


def test_what_is_gone_is_forgotten_after_a_month(
    tmp_path: Path, ledger: Ledger, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at once: a folder that is not mounted comes back."""
    bench = Bench(tmp_path, ledger)
    path = bench.write("a.pt", checkpoint)
    bench.remember(path)
    path.unlink()
    bench.intake.poll([], 0.0)
    assert ledger.get(str(path)) is not None
    monkeypatch.setattr(module, "FORGET_AFTER_S", -60.0)  # as if that were a month later
    bench.intake.poll([RescanNeeded(str(bench.drop), "again")], 1.0)
    assert ledger.get(str(path)) is None


def test_a_folder_that_is_not_watched_any_more(tmp_path: Path, ledger: Ledger, checkpoint: Path) -> None:
    """What was waited for in it is not waited for any more, and hints about it lead nowhere."""
    bench = Bench(tmp_path, ledger)
    path = bench.write("a.pt", checkpoint)
    bench.intake.poll([], 0.0)
    other = tmp_path / "other"
    other.mkdir()
    bench.intake.configure(bench.config_of(path=other), 1.0)
    assert bench.intake.waiting == 0
    root = str(bench.drop)
    assert bench.intake.poll([FileSeen(root, str(path), True), RescanNeeded(root, "overflow")], 2.0) == Found()
    assert list(bench.intake.roots) == [str(other)]
    assert bench.intake.is_quiet
