"""`convert` as a person uses it: what is taken, where it goes, what it is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sda_daemon.library import ModelLibrary
from tests.cli.console import run


def names(folder: Path) -> list[str]:
    """Return the names of a library's models."""
    return sorted(entry.name for entry in ModelLibrary(folder).list_all())


def test_the_config_says_where_and_how(library: Path) -> None:
    """Library, templates and number of workers come from the config; places are relative to its watch."""
    (library / "c.yaml").write_text(
        "models_dir: from-config\nwatch: [{path: runs}]\n"
        "metadata: {name: '{{ parts[0] }} by {{ training.preset }}', tags: [a]}\n"
    )
    printed = run("convert", "runs/take0", "--tag", "{{ run }}", "--config", "c.yaml", cwd=library)
    assert printed.code == 0
    (entry,) = ModelLibrary(library / "from-config").list_all()
    assert (entry.name, entry.tags) == ("take0 by balanced", ["a", "take0"])


def test_places_are_relative_to_the_innermost_watch(library: Path) -> None:
    """Where one watched folder lies in another, also if the outer one stands first in the config."""
    (library / "c.yaml").write_text(
        "models_dir: from-config\nwatch: [{path: runs}, {path: runs/take0}]\nmetadata: {name: '{{ relpath }}'}\n"
    )
    assert run("convert", "runs/take0", "runs/take1", "--config", "c.yaml", cwd=library).code == 0
    inner, outer = "checkpoints/checkpoint_epoch0007.pt", "take1/checkpoints/checkpoint_epoch0007.pt"
    assert names(library / "from-config") == [inner, outer]


def test_each_folder_has_the_names_of_its_watch(library: Path) -> None:
    """What is called like a checkpoint in one watched folder may not be in another; elsewhere the first one counts."""
    for number, folder in enumerate(("first", "second", "elsewhere")):
        for name in (f"{number}.ckpt", f"{number}.weights"):
            (library / folder).mkdir(exist_ok=True)
            source = library / "runs" / f"take{number}" / "checkpoints" / "checkpoint_epoch0007.pt"
            shutil.copy(source, library / folder / name)
    (library / "c.yaml").write_text(
        "models_dir: from-config\nmetadata: {name: '{{ relpath }}'}\n"
        "watch: [{path: first, patterns: ['*.ckpt']}, {path: second, patterns: ['*.weights']}]\n"
    )
    assert run("convert", "first", "second", "elsewhere", "--config", "c.yaml", cwd=library).code == 0
    assert names(library / "from-config") == ["0.ckpt", "1.weights", "2.ckpt"]


def test_options_win(library: Path) -> None:
    """Name, description and dataset from the options, as templates."""
    arguments = ("--name", "N {{ epoch }}", "--description", "D {{ val_loss }}", "--dataset", "S")
    run("convert", "runs/take1", *arguments, "--models-dir", "fresh", cwd=library)
    (entry,) = ModelLibrary(library / "fresh").list_all()
    assert (entry.name, entry.description, entry.dataset_name) == ("N 7", "D 0.6", "S")


def test_files_folders_and_globs_each_once(library: Path) -> None:
    """A checkpoint that is named three ways is converted once; a file is taken whatever it is called."""
    odd = library / "odd.name"
    shutil.copy(library / "runs" / "take2" / "checkpoints" / "checkpoint_epoch0007.pt", odd)
    arguments = ("runs/take0", "runs/take0/checkpoints/checkpoint_epoch0007.pt", "runs/take[01]/**/*.pt", "odd.name")
    printed = run("convert", *arguments, "--jobs", "1", "--models-dir", "fresh", "--json", cwd=library)
    assert printed.json()["summary"] == {"added": 3, "updated": 0, "duplicate": 0, "failed": 0}


def test_sliders_come_with_the_second_writing(library: Path) -> None:
    """The same weights, now with analysis: the same model, file and words, now with sliders."""
    from sda_daemon.demo.checkpoints import write_small_checkpoint

    path = library / "new" / "x.pt"
    write_small_checkpoint(path, 5, epoch=1)
    run("convert", "new", "--models-dir", "fresh", cwd=library)
    run("models", "edit", "new epoch 1", "--name", "My own words", "--models-dir", "fresh", cwd=library)
    write_small_checkpoint(path, 5, epoch=1, with_analysis=True)
    printed = run("convert", "new", "--models-dir", "fresh", cwd=library)
    assert "gave sliders to 'My own words'" in printed.stdout
    (entry,) = ModelLibrary(library / "fresh").list_all()
    assert (entry.name, entry.n_active_components) == ("My own words", 3)


def test_a_dry_run_writes_nothing(library: Path) -> None:
    """Not even the folder of a library that is not there; what would happen is told all the same."""
    before = sorted(path for path in library.rglob("*"))
    printed = run("convert", "runs", "--dry-run", "--jobs", "1", "--models-dir", "fresh", "--json", cwd=library)
    assert printed.json()["summary"] == {"added": 3, "updated": 0, "duplicate": 0, "failed": 1}
    assert sorted(path for path in library.rglob("*")) == before
    index = json.loads((library / "models" / "model_library.json").read_bytes())
    run("convert", "runs", "--dry-run", "--jobs", "1", "--models-dir", "models", cwd=library)
    assert json.loads((library / "models" / "model_library.json").read_bytes()) == index


def test_nothing_to_convert(library: Path) -> None:
    """An empty folder is no error."""
    (library / "empty").mkdir()
    printed = run("convert", "empty", "--models-dir", "fresh", cwd=library)
    assert (printed.code, printed.stdout) == (0, "")
    assert "nothing to convert" in printed.stderr
    assert names(library / "fresh") == []
