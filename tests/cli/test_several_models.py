"""Commands that are given several models: one that it cannot be done to keeps no other from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sda_daemon.errors import SomeFailedError
from sda_daemon.library import ModelLibrary, trash
from tests.cli.conftest import IDS
from tests.cli.console import check_golden, run
from tests.cli.test_failures import on_terminal

M = ("--models-dir", "models")
RAIN, HARP, HARP_2 = IDS


@pytest.fixture
def pinned(library: Path) -> Iterator[Callable[[Path], None]]:
    """A function that makes a file such that nobody can delete or rename it; skips where that is not possible."""
    made: list[Path] = []

    def pin(path: Path) -> None:
        if shutil.which("chattr") is None:
            pytest.skip("chattr is not installed")
        done = subprocess.run(["chattr", "+i", path], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file can be made immutable here: {done.stderr.strip()}")
        made.append(path)

    yield pin
    for path in made:
        subprocess.run(["chattr", "-i", path], check=False)


def names(library: Path) -> list[str]:
    """The model files that are there."""
    return sorted(path.name for path in (library / "models").glob("*.sda"))


@pytest.mark.parametrize("purge", [False, True])
def test_deleting_three_of_which_one_stays(library: Path, purge: bool, pinned: Callable[[Path], None]) -> None:
    """Two are gone, the third is a model of the library as before; its reason is told, and the exit code says so."""
    pinned(library / "models" / "plucked_strings.sda")
    option = ["--purge"] if purge else []
    printed = run("models", "delete", RAIN, HARP, HARP_2, "--yes", *option, *M, cwd=library, COLUMNS="80")
    check_golden(f"delete-some{'-purge' if purge else ''}-80", printed)
    models = ModelLibrary(library / "models")
    assert [entry.model_id for entry in models.list_all()] == [HARP]
    assert names(library) == ["plucked_strings.sda"]
    assert models.plan_repair().findings == ()
    assert len(trash.list_trash(models.models_dir)) == (0 if purge else 2)
    again = run("models", "delete", HARP, "--yes", *option, *M, "--json", cwd=library)
    assert (again.code, again.stdout) == (73, "")
    assert "Operation not permitted" in again.stderr


def test_emptying_a_trash_of_which_one_stays(library: Path, pinned: Callable[[Path], None]) -> None:
    """The others are gone, and what is left can still be restored under its old name."""
    run("models", "delete", RAIN, HARP, HARP_2, "--yes", *M, cwd=library)
    (stuck,) = (library / "models" / ".trash").glob("rain_on_tin~*.sda")
    pinned(stuck)
    printed = run("models", "trash", "--empty", "--yes", *M, cwd=library, COLUMNS="80")
    assert printed.code == 73
    assert "deleted 2 models for good, 6.3 MB" in printed.stdout
    assert "1 of 3 models could not be deleted:\n  'Rain on tin': Operation not permitted" in printed.stderr
    (left,) = trash.list_trash(library / "models")
    assert (left.entry.model_id, left.entry.file_path) == (RAIN, "rain_on_tin.sda")


def test_a_name_that_is_unknown_among_several(library: Path) -> None:
    """It is told; the others are exported, edited, verified, deleted and restored."""
    (library / "out").mkdir()
    given = [RAIN, "thunder", HARP]
    exported = run("models", "export", *given, "--to", "out", *M, "--json", cwd=library)
    assert [item["model_id"] for item in exported.json()] == [RAIN, HARP]
    edited = run("models", "edit", *given, "--tag", "new", *M, cwd=library)
    assert edited.stdout.splitlines() == [
        "changed 'Rain on tin' in rain_on_tin.sda",
        "changed 'Plucked strings' in plucked_strings.sda",
    ]
    verified = run("models", "verify", *given, *M, "--json", cwd=library)
    assert [item["result"] for item in verified.json()] == ["ok", "ok"]
    deleted = run("models", "delete", *given, "--yes", *M, cwd=library, COLUMNS="80")
    check_golden("delete-unknown-80", deleted)
    restored = run("models", "restore", *given, *M, "--json", cwd=library)
    assert [entry["model_id"] for entry in restored.json()] == [RAIN, HARP]
    for what, printed in (("exported", exported), ("edited", edited), ("verified", verified),
                          ("deleted", deleted), ("restored", restored)):  # fmt: skip
        assert printed.code == 1
        assert printed.stderr.endswith(
            f"sda-daemon: 1 of 3 models could not be {what}:\n  'thunder': there is no model 'thunder'. "
            f"See: sda-daemon models list\n"
        ), printed.stderr
    assert run("models", "delete", "thunder", "lightning", "--yes", *M, cwd=library).code == 1
    assert len(names(library)) == 3


def test_a_new_name_for_one_that_is_found_and_one_that_is_not(library: Path) -> None:
    """Whoever gives one name to two models is told that this is not possible, whichever of them there are."""
    printed = run("models", "edit", RAIN, "thunder", "--name", "x", *M, cwd=library)
    assert (printed.code, "2 models cannot all be called 'x'" in printed.stderr) == (2, True)


def test_exporting_where_one_file_is_there_already(library: Path) -> None:
    """It is not replaced, and the other ones are copied."""
    (library / "out").mkdir()
    (library / "out" / "plucked_strings.sda").write_text("precious")
    printed = run("models", "export", HARP, RAIN, "--to", "out", *M, cwd=library)
    assert (printed.code, printed.stdout) == (1, "out/rain_on_tin.sda\n")
    assert "there is a file out/plucked_strings.sda already" in printed.stderr
    assert (library / "out" / "plucked_strings.sda").read_text() == "precious"


def test_editing_where_one_file_is_broken(library: Path) -> None:
    """Its exit code and its message, and the others are changed."""
    path = library / "models" / "plucked_strings.sda"
    path.write_bytes(path.read_bytes()[:1000])
    printed = run("models", "edit", HARP, RAIN, HARP_2, "--tag", "new", *M, cwd=library)
    assert printed.code == 65
    assert (
        "1 of 3 models could not be edited:\n  'Plucked strings': models/plucked_strings.sda is truncated"
        in printed.stderr
    )
    tagged = run("models", "list", "--tag", "new", "--format", "id", *M, cwd=library).stdout.split()
    assert sorted(tagged) == sorted([RAIN, HARP_2])


@pytest.mark.parametrize(
    "option",
    [
        ("--dataset-files", str(10**400)),
        ("--dataset-duration", "nan"),
        ("--dataset-duration", "inf"),
        ("--name", "x" * 120_000),
    ],
)
def test_what_no_file_can_hold_is_not_written(option: tuple[str, str], library: Path) -> None:
    """A number beyond all counting, a text beyond reading: refused, and the model is what it was."""
    before = (library / "models" / "rain_on_tin.sda").read_bytes()
    printed = run("models", "edit", RAIN, *option, *M, cwd=library)
    assert printed.code in (2, 65)
    assert "Traceback" not in printed.stderr
    assert len(printed.stderr) < 1000
    assert (library / "models" / "rain_on_tin.sda").read_bytes() == before
    assert run("models", "verify", RAIN, *M, cwd=library).code == 0


def test_restoring_where_the_library_has_one_again(library: Path) -> None:
    """It stays in the trash; the other one is back."""
    source = (library / "models" / "rain_on_tin.sda").read_bytes()
    run("models", "delete", RAIN, HARP, "--yes", *M, cwd=library)
    (library / "models" / "rain_on_tin.sda").write_bytes(source)
    run("models", "repair", "--yes", *M, cwd=library)
    printed = run("models", "restore", RAIN, HARP, *M, cwd=library)
    assert (printed.code, printed.stdout) == (
        1,
        f"restored 'Plucked strings ({HARP[:8]})' as plucked_strings.sda\n",
    )
    assert "the library has the model 'Rain on tin' again (rain_on_tin.sda)" in printed.stderr
    models = ModelLibrary(library / "models")
    assert models.count() == 3
    (left,) = trash.list_trash(models.models_dir)
    assert left.entry.model_id == RAIN
    with pytest.raises(SomeFailedError) as failed:
        trash.restore(models, [left, left])
    assert [name for name, _ in failed.value.failures] == ["Rain on tin"] * 2


def test_a_name_that_another_model_got_meanwhile(library: Path) -> None:
    """The application finds models by name: what is restored gets another one, and an edit cannot make two."""
    run("models", "delete", RAIN, "--yes", *M, cwd=library)
    run("models", "edit", HARP, "--name", "rain  on Tin", *M, cwd=library)
    restored = run("models", "restore", RAIN, *M, cwd=library)
    new = f"Rain on tin ({RAIN[:8]})"
    assert (restored.code, restored.stdout) == (0, f"restored '{new}' as rain_on_tin.sda\n")
    assert f"Another model is called 'Rain on tin' by now: the restored one is called '{new}'." in restored.stderr
    shown = run("models", "repair", "--dry-run", *M, cwd=library)
    assert shown.stdout == "The index agrees with the folder: 3 models.\n"
    edited = run("models", "edit", RAIN, "--name", "Dew", *M, cwd=library)
    for name in ("Dew", "dew", " DEW "):
        again = run("models", "edit", HARP, "--name", name, *M, cwd=library)
        assert (edited.code, again.code) == (0, 1)
        assert "there is another model called 'Dew' (rain_on_tin.sda)" in again.stderr
    assert run("models", "edit", RAIN, "--name", "DEW", *M, cwd=library).code == 0


def test_names_that_others_share_are_told(library: Path) -> None:
    """Models that other programs have saved keep theirs; a repair says which cannot be told apart."""
    shown = run("models", "repair", "--dry-run", *M, cwd=library)
    assert "2 models are called 'Plucked strings', and the training application finds models by name" in shown.stderr
    assert shown.code == 0
    run("models", "edit", HARP, "--name", "Harp", *M, cwd=library)
    assert run("models", "repair", "--dry-run", *M, cwd=library).stderr == ""


def test_odd_notes_in_the_trash(library: Path) -> None:
    """A note that is a folder, too long, no JSON, or says nonsense: the file speaks for itself."""
    run("models", "delete", RAIN, HARP, HARP_2, "--yes", *M, cwd=library)
    folder = library / "models" / ".trash"
    rain, harp, harp_2 = (folder / f"{path.name}.json" for path in sorted(folder.glob("*.sda"), reverse=True))
    rain.unlink()
    rain.mkdir()
    note = json.loads(harp.read_text())
    note["entry"].update(model_id=["x"], training_epochs=10**400)
    harp.write_text(json.dumps(note))
    note = json.loads(harp_2.read_text())
    note.update(deleted_at={"a": "\ud800\x1b" * 1000})
    note["entry"].update(name="R\ud800", file_size_bytes=None, save_date="0001-01-01T00:00:00+14:00")
    harp_2.write_text(json.dumps(note))
    (folder / "junk.sda").write_bytes(b"junk")
    (folder / os.fsdecode(b"\xff.sda")).write_bytes(b"junk")
    shown = run("models", "trash", *M, cwd=library)
    assert (shown.code, shown.stderr, len(shown.stdout.splitlines())) == (0, "", 4)
    assert "\x1b" not in shown.stdout
    assert len(run("models", "trash", "--json", *M, cwd=library).json()) == 3
    restored = run("models", "restore", RAIN, HARP, HARP_2, *M, cwd=library)
    assert (restored.code, len(restored.stdout.splitlines())) == (0, 3), restored.stderr
    assert len(names(library)) == 3


def test_a_model_with_a_very_long_file_name(library: Path) -> None:
    """As long as a name can be: deleted, restored, exported, edited, like any other."""
    long = "x" * 250 + ".sda"
    (library / "models" / "rain_on_tin.sda").rename(library / "models" / long)
    umlauts = "ü" * 125 + ".sda"
    (library / "models" / "plucked_strings.sda").rename(library / "models" / umlauts)
    run("models", "repair", "--yes", *M, cwd=library)
    (library / "out").mkdir()
    for arguments in (
        ("export", RAIN, HARP, "--to", "out"),
        ("edit", RAIN, HARP, "--tag", "new"),
        ("delete", RAIN, HARP, "--yes"),
        ("restore", RAIN, HARP),
        ("delete", RAIN, HARP, "--purge", "--yes"),
    ):
        printed = run("models", *arguments, *M, cwd=library)
        assert (printed.code, "Traceback" in printed.stderr) == (0, False), printed.stderr
        if arguments[0] == "restore":
            assert sorted(names(library)) == sorted([long, umlauts, "plucked_strings_1.sda"])
    assert (library / "out" / umlauts).exists()


def test_a_full_trash_keeps_all(library: Path) -> None:
    """Where not even a note can be written, nothing is deleted."""
    folder = library / "models" / ".trash"
    folder.write_text("no folder")
    printed = run("models", "delete", RAIN, HARP, "--yes", *M, cwd=library)
    assert printed.code == 1
    assert "Traceback" not in printed.stderr
    assert len(names(library)) == 3
    assert ModelLibrary(library / "models").count() == 3


def test_who_is_asked_knows_what_is_not_found(library: Path) -> None:
    """Before the question: which of the names there is no model for, and which models there are."""
    shown, code = on_terminal(["models", "delete", "thunder", RAIN, *M], library, typed="n\n")
    assert code == 1
    assert shown.index("there is no model 'thunder'") < shown.index("Rain on tin") < shown.index("Delete 1 model into")
    assert len(names(library)) == 3
