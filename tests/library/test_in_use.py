"""b34: what people have made with a model, or of it, keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.conversion import worker
from sda_daemon.conversion.job import ConversionJob, Converted
from sda_daemon.conversion.publish import publish
from sda_daemon.intake.probe import look
from sda_daemon.library import trash
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.in_use import InUse
from sda_daemon.library.restored import RESTORED_FILE_NAME, remember_restored, restored_ids
from sda_daemon.library.touched import is_touched, words_digest
from sda_daemon.models import ModelMetadata, save_model_from_checkpoint
from sda_daemon.models.editing import MetadataChange, edit_model
from sda_daemon.models.header import read_model_header
from sda_daemon.settings.schema import MetadataSettings

Make = Callable[..., ModelEntry]


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """An empty library."""
    return ModelLibrary(tmp_path / "models")


@pytest.fixture
def make(library: ModelLibrary, drop: Callable[..., Path], tmp_path: Path) -> Make:
    """A function that has the daemon's own conversion make a model, once more with sliders if that is wanted."""

    def made(seed: int = 1, *, name: str = "{{ run }}", with_analysis: bool = False) -> ModelEntry:
        path = drop(tmp_path / "runs" / f"run{seed}" / "x.pt", seed, with_analysis=with_analysis)
        signature = look(str(path))
        assert signature is not None
        work = library.models_dir / ".work"
        work.mkdir(exist_ok=True)
        job = ConversionJob(
            str(path),
            signature,
            str(tmp_path / "runs"),
            str(library.models_dir),
            str(work),
            f"{seed}.tmp",
            MetadataSettings(name=name, tags=("a", "b")),
            by_daemon=True,
        )
        outcome = worker.convert(job)
        assert isinstance(outcome, Converted)
        (done,) = publish(library, [outcome])
        assert done.entry is not None
        return done.entry

    return made


def test_a_new_model_is_not_in_use(library: ModelLibrary, make: Make) -> None:
    """Nor when another of its name came before it, or its sliders came later."""
    first, second = make(1, name="same"), make(2, name="same")
    assert second.name.startswith("same (")
    assert [InUse().why(library, entry) for entry in (first, second)] == ["", ""]
    again = make(2, name="same", with_analysis=True)
    assert (again.name, again.has_analysis) == (second.name, True)
    assert InUse().why(library, again) == ""


@pytest.mark.parametrize(
    "change",
    [
        MetadataChange(name="Evening"),
        MetadataChange(description="mine"),
        MetadataChange(dataset_name="rain"),
        MetadataChange(tags=("c",)),
        MetadataChange(untags=("a",)),
    ],
)
def test_an_edited_model_is_in_use(library: ModelLibrary, make: Make, change: MetadataChange) -> None:
    """Whatever of its words was changed; also after its sliders have come, with templates that give other words."""
    entry = edit_model(library, make(1).model_id, change)
    why = "a person has named, described or tagged it"
    assert InUse().why(library, entry) == why
    again = make(1, name="other", with_analysis=True)
    assert again.has_analysis
    assert InUse().why(library, again) == why


def test_the_applications_own_edit_counts(library: ModelLibrary, make: Make) -> None:
    """It changes the index alone."""
    entry = make(1)
    library.add_entry(ModelEntry(**{**entry.to_dict(), "name": "Warm"}))
    found = library.get(entry.model_id)
    assert found is not None
    assert InUse().why(library, found)


def test_a_model_that_was_saved_by_hand_or_cannot_be_read_is_in_use(
    library: ModelLibrary, make: Make, small_checkpoints: Callable[..., Path]
) -> None:
    """What the daemon did not make, or does not understand."""
    path = save_model_from_checkpoint(small_checkpoints(5), ModelMetadata(name="mine"), library.models_dir)
    library.refresh()
    (mine,) = [entry for entry in library.entries() if entry.file_path == path.name]
    assert InUse().why(library, mine) == "it was saved by hand"
    entry = make(1)
    (library.models_dir / entry.file_path).write_bytes(b"junk")
    assert InUse().why(library, entry) == "its file cannot be read"
    (library.models_dir / entry.file_path).unlink()
    assert InUse().why(library, entry) == ""


def test_a_restored_model_is_in_use(library: ModelLibrary, make: Make) -> None:
    """From then on, also for a library that is opened anew; a broken note is as good as none."""
    entry = make(1)
    trash.discard(library, [entry])
    assert restored_ids(library.models_dir) == set()
    trash.restore(library, trash.list_trash(library.models_dir))
    fresh = ModelLibrary(library.models_dir)
    (back,) = fresh.entries()
    assert InUse().why(fresh, back) == "it was restored"
    remember_restored(library.models_dir, ["another"])
    assert restored_ids(library.models_dir) == {entry.model_id, "another"}
    for text in ("", "[]", "{", '{"models": 3}', "null"):
        (library.models_dir / RESTORED_FILE_NAME).write_text(text)
        assert restored_ids(library.models_dir) == set()


def test_presets_keep_a_model(library: ModelLibrary, make: Make, tmp_path: Path) -> None:
    """`<presets>/<model id>/presets.json`, and nothing that an id could lead to elsewhere."""
    entry, other = make(1), make(2)
    folder = tmp_path / "presets" / entry.model_id
    folder.mkdir(parents=True)
    in_use = InUse(tmp_path / "presets", tmp_path / "history")
    assert in_use.why(library, entry) == ""
    (folder / "presets.json").write_text("{}")
    assert in_use.why(library, entry) == "it has presets"
    assert in_use.why(library, other) == ""
    (tmp_path / "presets.json").write_text("{}")
    for model_id in ("..", "../presets/" + entry.model_id, "", "\0"):
        assert in_use.why(library, ModelEntry(**{**other.to_dict(), "model_id": model_id})) == ""


@pytest.mark.parametrize(
    "shape",
    [
        lambda item: [item],
        lambda item: {"version": 1, "entries": [{"model_id": "x"}, item]},
        lambda item: {"2026": {"deep": [[item]]}},
        lambda item: item,
    ],
)
def test_the_history_keeps_a_model(
    library: ModelLibrary, make: Make, tmp_path: Path, shape: Callable[[Any], Any]
) -> None:
    """However its entries are kept; it is read anew when it changes, and what cannot be read keeps all."""
    entry, other = make(1), make(2)
    history = tmp_path / "history" / "history.json"
    in_use = InUse(None, history.parent)
    assert in_use.why(library, entry) == ""
    history.parent.mkdir()
    history.write_text("[]")
    assert in_use.why(library, entry) == ""
    history.write_text(json.dumps(shape({"model_id": entry.model_id, "seed": 3})))
    assert in_use.why(library, entry) == "it stands in the history"
    assert in_use.why(library, other) == ""
    history.write_text('[{"model_id": "half')
    for item in (entry, other):
        assert in_use.why(library, item).startswith("the application's history cannot be read")


def test_words_that_were_not_recorded_tell_nothing(library: ModelLibrary, make: Make) -> None:
    """Models of earlier versions have no digest; a name in brackets of one's own is still a change of the words."""
    entry = make(1)
    provenance = read_model_header(library.models_dir / entry.file_path).provenance
    assert not is_touched(entry, provenance)
    for known in ({}, {"words_digest": ""}, {"words_digest": 3}):
        assert not is_touched(ModelEntry(**{**entry.to_dict(), "name": "other"}), known)
    assert is_touched(ModelEntry(**{**entry.to_dict(), "name": "other (2026-02-03)"}), provenance)
    assert words_digest("a", "b", "c", ["d"]) != words_digest("a", "b", "c", [])
    assert words_digest("a", "", "b", []) != words_digest("a", "b", "", [])
