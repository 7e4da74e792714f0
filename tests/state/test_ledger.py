"""The ledger on a real SQLite file: it remembers, survives, and is only a memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sda_daemon.errors import SdaError
from sda_daemon.signature import FileSignature
from sda_daemon.state.ledger import LEDGER_FILE_NAME, KeptSource, Ledger, MadeModel
from sda_daemon.state.policy import LedgerRow, Status
from tests.odd_texts import ODD_TEXTS


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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(ODD_TEXTS, ODD_TEXTS, ODD_TEXTS, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
def test_any_text_can_be_remembered(
    ledger: Ledger, path: str, text: str, model_id: str, number: int, at: float
) -> None:
    """Paths, ids and digests of any characters come back as they went in, and are found again."""
    written = LedgerRow(
        path, text, FileSignature(1, number, number), Status.FAILED, 1, "io", text, model_id, text, "t", at, at or 1.0
    )
    ledger.put([written])
    found = ledger.get(path)
    assert found is not None
    assert replace(found, reason=text) == written
    assert (path, text) in ledger.paths_of_model(model_id)
    assert path in ledger.contents_of_root(text)
    ledger.remember_models([MadeModel(model_id, text, path, text)])
    assert ledger.made_model(model_id) == MadeModel(model_id, text, path, text)
    ledger.mark_superseded([model_id])
    ledger.forget_models([model_id])
    ledger.forget([path])
    assert ledger.get(path) is None


def test_texts_of_earlier_versions_are_found(ledger: Ledger, tmp_path: Path) -> None:
    """A path that is not UTF-8 is stored as it has been from the beginning."""
    ledger.put([row("/drop/ä\udcff.pt")])
    with sqlite3.connect(tmp_path / LEDGER_FILE_NAME) as database:
        ((stored,),) = database.execute("SELECT path FROM checkpoints").fetchall()
    database.close()
    assert stored == "\0/drop/Ã¤ÿ.pt"


ODD_ROWS: dict[str, dict[str, object]] = {
    "a status of the future": {"status": "archived"},
    "bytes": {"kind": b"\xff"},
    "a text for a number": {"attempts": "many"},
    "a text for a date": {"updated_at": "yesterday"},
    "text that is not UTF-8": {"path": b"\xff\xfe"},
}


@pytest.mark.parametrize("name", ODD_ROWS)
def test_a_row_that_makes_no_sense_is_as_good_as_none(name: str, ledger: Ledger, tmp_path: Path) -> None:
    """It hides itself only: the others are found, listed, counted and tried again."""
    ledger.put([row("/drop/a.pt", Status.FAILED, kind="io"), row("/drop/odd.pt", Status.FAILED), row("/drop/b.pt")])
    with sqlite3.connect(tmp_path / LEDGER_FILE_NAME) as database:
        for column, value in ODD_ROWS[name].items():
            cast = "CAST(? AS TEXT)" if column == "path" else "?"
            database.execute(f"UPDATE checkpoints SET {column} = {cast} WHERE path = '/drop/odd.pt'", (value,))
    database.close()
    assert ledger.get("/drop/odd.pt") is None
    assert "/drop/a.pt" in [item.path for item in ledger.of_status(*Status)]
    assert ledger.contents_of_root("/drop")["/drop/b.pt"] == (1, 2**62, 3)
    assert ledger.counts_since(0.0)[Status.DONE] == 1
    assert "/drop/a.pt" in ledger.reset_attempts()
    ledger.put([row("/drop/odd.pt")])
    assert ledger.get("/drop/odd.pt") is not None


def test_a_damaged_fact_about_the_daemon_is_left_out(ledger: Ledger, tmp_path: Path) -> None:
    """The others are read, and the next daemon publishes it again."""
    ledger.report({"daemon": {"pid": 1}, "library": {"models": 3}})
    with sqlite3.connect(tmp_path / LEDGER_FILE_NAME) as database:
        database.execute("UPDATE report SET value = '{' WHERE key = 'daemon'")
    database.close()
    other = Ledger(tmp_path)
    assert other.reported() == {"library": {"models": 3}}
    other.close()


def test_a_reason_is_bounded(ledger: Ledger) -> None:
    """Of a message that quotes a whole file a person needs the beginning."""
    ledger.put([row("a", Status.FAILED, reason="x" * 10**6)])
    found = ledger.get("a")
    assert found is not None
    assert found.reason == "x" * 1999 + "…"
