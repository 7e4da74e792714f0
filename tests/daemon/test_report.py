"""What is published for `status`: not more often than once a second, and only what is news."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from sda_daemon.daemon.report import PUBLISH_S, Reporter
from sda_daemon.daemon.snapshot import Snapshot, Tally, WatchState
from sda_daemon.state.ledger import Ledger

SNAPSHOT = Snapshot(
    models_dir=Path("/models"),
    models=7,
    foreign_entries=2,
    library_problem="",
    watches=(WatchState("/a", "native", ""), WatchState("/b", "", "it is not there")),
    settling=(3, ("/a/1.pt", "/a/2.pt")),
    soon=3,
    waiting=(5, ("/a/3.pt",)),
    converting=("/a/4.pt",),
    incomplete={"/a/5.pt": "half"},
    incomplete_count=1,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A real one."""
    with closing(Ledger(tmp_path)) as made:
        yield made


def test_only_news_and_not_too_often(ledger: Ledger) -> None:
    """What changes within a second is published when that is over; the end is published at once."""
    reporter = Reporter(ledger)
    told = []
    for now, value in [(10.0, 1), (10.1, 2), (10.0 + PUBLISH_S, 2), (20.0, 2), (30.0, 3), (30.5, 4)]:
        reporter.poll({"value": value}, now)
        told.append(ledger.reported()["value"])
    assert told == [1, 1, 2, 2, 3, 3]
    reporter.close({"value": 4})
    assert ledger.reported()["value"] == 4


def test_a_snapshot_as_status_reads_it() -> None:
    """Counts are whole, lists are short."""
    found = SNAPSHOT.document({"pid": 1})
    assert found["daemon"] == {"pid": 1}
    assert found["library"] == {"models": 7, "foreign_entries": 2, "problem": ""}
    assert found["watches"][1] == {"path": "/b", "observer": "", "problem": "it is not there"}
    assert found["settling"] == {"count": 3, "paths": ["/a/1.pt", "/a/2.pt"]}
    assert found["waiting"] == {"count": 5, "paths": ["/a/3.pt"]}
    assert found["converting"] == ["/a/4.pt"]
    assert found["incomplete"] == [{"path": "/a/5.pt", "reason": "half"}]
    assert found["filled"]["models"] == 7


def test_a_folder_that_is_lost_is_still_known_to_have_been_full() -> None:
    """What is remembered of it is not written over with what is to be seen of it now."""
    assert "filled" not in replace(SNAPSHOT, library_problem="it is gone").document({})


def test_a_snapshot_as_the_service_manager_reads_it() -> None:
    """What will settle soon waits, too."""
    progress = SNAPSHOT.progress(Tally(3, 2, "rain epoch 7", 100.0), 112.0)
    assert (progress.watching, progress.missing) == (1, ("/b",))
    assert (progress.converting, progress.waiting, progress.failed) == (1, 8, 2)
    assert (progress.last, progress.last_age_s) == ("rain epoch 7", 12.0)
