"""The ledger on a real SQLite file: it remembers, survives, and is only a memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sda_daemon.conversion.ledger import LEDGER_FILE_NAME, KeptSource, Ledger, MadeModel
from sda_daemon.conversion.policy import LedgerRow, Status
from sda_daemon.errors import SdaError
from sda_daemon.signature import FileSignature


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new ledger."""
    made = Ledger(tmp_path)
    yield made
    made.close()


def row(path: str, status: Status = Status.DONE, **facts: object) -> LedgerRow:
    return LedgerRow(path, "/drop", FileSignature(1, 2**62, 3), status, **facts)  # type: ignore[arg-type]


def test_rows_come_back_as_they_were(ledger: Ledger, tmp_path: Path) -> None:
    """Also in another process's view, and after a new opening."""
    written = row("/drop/ä\udcff.pt", Status.FAILED, attempts=3, kind="io", reason="r")
    ledger.put([written])
    assert ledger.is_new
    ledger.mark_rebuilt()
    other = Ledger(tmp_path)
    assert not other.is_new
    found = other.get(written.path)
    assert found is not None
    assert replace(found, updated_at=0.0) == written
    assert other.contents_of_root("/drop") == {written.path: None}
    ledger.put([row("/drop/done.pt")])
    assert other.contents_of_root("/drop") == {written.path: None, "/drop/done.pt": (1, 2**62, 3)}
    ledger.forget(["/drop/done.pt"])
    assert [item.path for item in other.of_status(Status.FAILED)] == [written.path]
    ledger.forget([written.path])
    assert other.get(written.path) is None
    other.close()


def test_attempts_of_a_killed_daemon_count_and_cut_off_ones_do_not(ledger: Ledger) -> None:
    """What ended with the daemon may have ended it; what a stop cut off is only put off."""
    ledger.put([row("a", Status.CONVERTING, attempts=2), row("b", Status.DONE, attempts=1)])
    assert ledger.recover() == 1
    found = ledger.get("a")
    assert found is not None
    assert (found.status, found.attempts, found.kind) == (Status.FAILED, 2, "interrupted")
    ledger.put([row("c", Status.CONVERTING, attempts=2), row("d", Status.DONE, attempts=2)])
    ledger.take_back(["c", "d"])
    cut, done = ledger.get("c"), ledger.get("d")
    assert cut is not None
    assert done is not None
    assert (cut.status, cut.attempts) == (Status.FAILED, 1)
    assert (done.status, done.attempts) == (Status.DONE, 2)


def test_only_the_daemon_makes_and_replaces_it(tmp_path: Path) -> None:
    """A command that looks must not make a ledger, nor set a broken one aside under a running daemon."""
    with pytest.raises(SdaError):
        Ledger(tmp_path / "none", owned=False)
    assert not (tmp_path / "none").exists()
    broken = tmp_path / LEDGER_FILE_NAME
    broken.write_bytes(b"no database " * 1000)
    with pytest.raises(SdaError):
        Ledger(tmp_path, owned=False)
    assert broken.read_bytes() == b"no database " * 1000


def test_failures_can_be_forgotten(ledger: Ledger) -> None:
    """Some of them, or all; what is done stays."""
    ledger.put([row("a", Status.REFUSED), row("b", Status.GIVEN_UP), row("c", Status.DONE)])
    assert ledger.reset_attempts(["a", "c", "nothing"]) == ["a"]
    assert ledger.reset_attempts() == ["b"]
    assert ledger.get("c") is not None


def test_models_of_a_folder(ledger: Ledger) -> None:
    """Only those directly in it, also where names contain wildcards."""
    made = [
        MadeModel("1", "d", "/drop/a_b/x.pt", "/drop"),
        MadeModel("2", "d", "/drop/a_b/c/x.pt", "/drop"),
        MadeModel("3", "d", "/drop/axb/x.pt", "/drop"),
        MadeModel("4", "d", "/drop/a_b%/x.pt", "/drop"),
    ]
    ledger.remember_models(made)
    assert ledger.models_below("/drop/a_b") == [made[0]]
    assert ledger.made_model("3") == made[2]
    ledger.forget_models(["3"])
    assert ledger.made_model("3") is None


def test_a_broken_ledger_is_set_aside(tmp_path: Path) -> None:
    """It is only a memory: a new one is begun and the old one kept for a look."""
    (tmp_path / LEDGER_FILE_NAME).write_bytes(b"this is no database, it only has the name of one" * 100)
    ledger = Ledger(tmp_path)
    assert ledger.is_new
    ledger.put([row("a")])
    assert len(list(tmp_path.glob(f"{LEDGER_FILE_NAME}.broken-*"))) == 1
    ledger.close()


def test_a_ledger_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    """A file where the state folder should be."""
    (tmp_path / "state").write_text("")
    with pytest.raises(SdaError, match="state_dir"):
        Ledger(tmp_path / "state")


def test_reports(ledger: Ledger) -> None:
    """What the daemon publishes about itself is read back as it was."""
    ledger.report({"daemon": {"pid": 1}, "watches": []})
    ledger.report({"watches": [1]})
    assert ledger.reported() == {"daemon": {"pid": 1}, "watches": [1]}


def test_kept_sources_are_news_once_for_each_content(ledger: Ledger, tmp_path: Path) -> None:
    """Another reason for the same content is no news, another content is; a ledger without the table has none."""
    first = KeptSource("/drop/ä\udcff.pt", "/drop", FileSignature(1, 2**62, 3), "no room for ä\udcff.pt", 1.0)
    assert ledger.keep_source(first)
    assert not ledger.keep_source(replace(first, reason="read-only", since=2.0))
    other = Ledger(tmp_path)
    assert other.kept_sources() == [replace(first, reason="read-only")]
    other.close()
    again = replace(first, signature=FileSignature(2, 2, 2), since=3.0)
    assert ledger.keep_source(again)
    assert [item.since for item in ledger.kept_sources()] == [3.0]
    ledger.release_sources([first.path, "/drop/unknown.pt"])
    assert ledger.kept_sources() == []
    ledger._db.execute("DROP TABLE kept_sources")
    assert ledger.kept_sources() == []
    again_open = Ledger(tmp_path)
    assert again_open.keep_source(first)
    again_open.close()
