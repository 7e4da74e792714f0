"""Lists of thousands: a person gets the first, how many more there are and how to see them; a program gets all."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from sda_daemon.cli.schemas import SCHEMAS
from sda_daemon.library import trash
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.signature import FileSignature
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.policy import LedgerRow, Status
from tests.cli.console import Printed, check_golden, run
from tests.library.model_files import entry

M = ("--models-dir", "models")
C = ("--config", "sda-daemon.yaml")
MANY = 20_000


def crowd(library: Path, count: int, **facts: object) -> None:
    """Put so many entries without files into the index."""
    index = library / "models" / "model_library.json"
    data = json.loads(index.read_bytes())
    for number in range(count):
        values = {**entry(number).to_dict(), **facts}
        data["models"][values["model_id"]] = values
    index.write_text(json.dumps(data))


def lines(printed: Printed) -> int:
    """How many lines a person gets to see."""
    return len((printed.stdout + printed.stderr).splitlines())


@pytest.fixture
def failures(library: Path) -> Path:
    """A state folder whose ledger knows of 20,000 checkpoints that failed, and are there."""
    (library / "sda-daemon.yaml").write_text("models_dir: models\nstate_dir: state\nwatch:\n  - path: runs\n")
    folder = library / "runs" / "many"
    folder.mkdir()
    for number in range(MANY):
        (folder / f"{number:05}.pt").touch()
    ledger = Ledger(library / "state")
    signature = FileSignature(0, 0, 0)
    ledger.put(
        LedgerRow(
            str(folder / f"{number:05}.pt"),
            "",
            signature,
            Status.REFUSED,
            1,
            "broken",
            "it is empty",
            updated_at=1e9 + number,
        )
        for number in range(MANY)
    )
    ledger.close()
    return library


def test_status_with_twenty_thousand_failures(failures: Path) -> None:
    """Not 60,000 lines: the latest, the count of the rest, and what shows them."""
    printed = run("status", *C, cwd=failures, COLUMNS="80")
    check_golden("status-many-80", printed)
    assert lines(printed) < 30
    everything = run("status", "--all", *C, cwd=failures)
    assert lines(everything) == 3 * MANY + 3
    as_json = run("status", "--json", *C, cwd=failures)
    SCHEMAS["status"].model_validate_json(as_json.stdout, strict=True)
    assert len(as_json.json()["failed"]) == MANY
    unknown = [str(failures / f"{number}.pt") for number in range(300)]
    retried = run("retry", *unknown, *C, cwd=failures)
    assert retried.code == 1
    assert retried.stderr.splitlines()[-1] == "and 280 more"
    assert lines(retried) == 22
    assert run("retry", "--all", *C, cwd=failures).stdout == f"{MANY} will be tried again when the daemon starts\n"


def test_a_plan_of_thousands_of_findings(library: Path) -> None:
    """`repair` shows the first, counts them by kind, and does all of them."""
    crowd(library, 5000)
    printed = run("models", "repair", "--dry-run", *M, cwd=library, COLUMNS="80")
    check_golden("repair-many-80", printed)
    assert lines(printed) < 30
    assert lines(run("models", "repair", "--dry-run", "--all", *M, cwd=library)) == 5004
    as_json = run("models", "repair", "--dry-run", "--json", *M, cwd=library)
    assert len(as_json.json()["findings"]) == 5000
    assert run("models", "repair", "--yes", *M, cwd=library).stdout.splitlines()[-1] == (
        "repaired: 5000 removed, 0 added; now 3 models"
    )


def test_a_name_that_thousands_have(library: Path) -> None:
    """The ambiguous name is told with a few of its models, and how to see them all."""
    crowd(library, 5000, name="Alike")
    printed = run("models", "show", "alike", *M, cwd=library, COLUMNS="80")
    check_golden("ambiguous-many-80", printed)
    assert lines(printed) == 12
    found = run("models", "list", "--format", "id,name,file", *M, cwd=library).stdout
    assert sum("\tAlike\t" in line for line in found.splitlines()) == 5000


def test_verifying_many_bad_ones(library: Path) -> None:
    """What is bad comes first, the rest is counted."""
    crowd(library, 60)
    printed = run("models", "verify", *M, cwd=library, COLUMNS="80")
    check_golden("verify-many-80", printed)
    assert lines(printed) < 50
    assert lines(run("models", "verify", "--all", *M, cwd=library)) == 1 + 63 + 60 + 1
    assert len(run("models", "verify", "--json", *M, cwd=library).json()) == 63


def test_deleting_and_restoring_many(library: Path) -> None:
    """Fifty at once: each step fits on a screen, and the trash does too."""
    models = ModelLibrary(library / "models")
    (harp,) = models.search("plucked", sort_by="file_path", reverse=False)[:1]
    for number in range(50):
        shutil.copyfile(models.models_dir / harp.file_path, models.models_dir / f"copy{number:02}.sda")
    models.repair_index()
    copies = [found.model_id for found in models.list_all("file_path", reverse=False) if "copy" in found.file_path]
    edited = run("models", "edit", *copies, "--tag", "new", *M, cwd=library)
    assert (edited.code, lines(edited), edited.stdout.splitlines()[-1]) == (0, 21, "and 30 more")
    assert len(models.search(tags=["new"])) == 0
    models.refresh()
    assert len(models.search(tags=["new"])) == 50
    deleted = run("models", "delete", *copies, "--yes", *M, cwd=library)
    assert (deleted.code, lines(deleted)) == (0, 43)
    shown = run("models", "trash", *M, cwd=library, COLUMNS="80")
    assert shown.stdout.splitlines()[-1] == "and 30 more: sda-daemon models trash --all"
    assert len(shown.stdout.splitlines()) == 22
    assert len(run("models", "trash", "--all", *M, cwd=library).stdout.splitlines()) == 51
    assert len(run("models", "trash", "--json", *M, cwd=library).json()) == 50
    restored = run("models", "restore", *copies, *M, cwd=library)
    assert (restored.code, restored.stdout.splitlines()[-1], lines(restored)) == (0, "and 30 more", 22)
    assert "Another model is called 'Plucked strings' by now" in restored.stderr
    assert "(and 49 more)" in restored.stderr
    assert trash.list_trash(models.models_dir) == []


def test_thousands_of_unusable_entries(library: Path) -> None:
    """Each is left out alone; a person hears of the first, and how many more."""
    crowd(library, 3000, training_epochs="many")
    printed = run("models", "list", *M, cwd=library)
    assert printed.code == 0
    assert len(printed.stdout.splitlines()) == 4
    told = printed.stderr.splitlines()
    assert len(told) == 23
    assert told[20].startswith("3000 other entries in the index")
    assert told[0].endswith("(model_id: id00000, reason: training_epochs must be a number, not 'many')")
    assert told[-1] == "sda-daemon: and 2980 more of the kind library.entry_invalid"
    assert len(run("models", "list", *M, "--json", cwd=library).json()) == 3


def test_a_config_with_hundreds_of_mistakes(library: Path) -> None:
    """The first, the count, and all of them with --all; a daemon that is started with it says no more."""
    text = (library / "sda-daemon.yaml").read_text() + "".join(f"wrong{number}: 1\n" for number in range(500))
    (library / "sda-daemon.yaml").write_text(text)
    printed = run("config", "check", "sda-daemon.yaml", cwd=library)
    assert (printed.code, lines(printed)) == (78, 22)
    assert printed.stderr.splitlines()[-2:] == ["and 480 more: sda-daemon config check --all", "500 problems"]
    assert lines(run("config", "check", "sda-daemon.yaml", "--all", cwd=library)) == 501
    started = run("run", "--once", *C, cwd=library)
    assert (started.code, lines(started)) == (78, 23)
    assert "and 478 more" in started.stderr


def test_converting_many_bad_files(library: Path) -> None:
    """The first failures as they come, then the first paths, and the number of all."""
    folder = library / "runs" / "junk"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.pt").write_bytes(b"junk")
    printed = run("convert", "runs/junk", "runs/take1", "--models-dir", "other", cwd=library)
    assert printed.code == 1
    told = printed.stderr.splitlines()
    assert sum(line.startswith("sda-daemon: runs/junk/") for line in told) == 20
    assert told[-4] == "and 40 more: with --all each with its reason, or --json"
    assert all(line.startswith("sda-daemon: 1 of 61: ") for line in told[-3:-1]), "what will not sound right"
    assert told[-1].startswith("1 converted, 60 failed in ")
    assert len(told) == 20 + 1 + 20 + 4
    everything = run("convert", "runs/junk", "--all", "--models-dir", "other", cwd=library)
    assert lines(everything) == 60 + 1 + 60 + 1
    as_json = run("convert", "runs/junk", "--json", "--models-dir", "other", cwd=library).json()
    assert (as_json["summary"]["failed"], len(as_json["results"])) == (60, 60)


def test_a_long_list_takes_no_long_time(library: Path) -> None:
    """Three thousand models with names of ten thousand characters: what a person sees of them is short."""
    crowd(library, 3000, name="n" * 10_000, description="d" * 10_000)
    began = time.monotonic()
    printed = run("models", "list", *M, cwd=library, COLUMNS="100")
    assert printed.code == 0
    assert time.monotonic() - began < 30
    assert len(printed.stdout) < 3100 * 101
    assert len(run("models", "list", *M, cwd=library).stdout) < 3100 * 500
