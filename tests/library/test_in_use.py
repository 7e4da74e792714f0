"""b34: what people have made with a model, or of it, keeps it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.conversion import worker
from sda_daemon.conversion.job import ConversionJob, Converted
from sda_daemon.conversion.publish import publish
from sda_daemon.library import trash
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.editing import MetadataChange, edit_model
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.in_use import InUse
from sda_daemon.library.restored import RESTORED_FILE_NAME, remember_restored, restored_ids
from sda_daemon.library.touched import is_touched, words_digest
from sda_daemon.models import ModelMetadata, save_model_from_checkpoint
from sda_daemon.models.header import read_model_header
from sda_daemon.models.provenance import Provenance
from sda_daemon.settings.schema import MetadataSettings
from sda_daemon.signature import signature_at
from tests.neighbours import CONTENTS, LARGE, NO_FILES

Make = Callable[..., ModelEntry]


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """An empty library."""
    return ModelLibrary(tmp_path / "models")


@pytest.fixture
def job_of(library: ModelLibrary, drop: Callable[..., Path], tmp_path: Path) -> Callable[..., ConversionJob]:
    """A function that gives the daemon's job for a checkpoint that it drops."""

    def job(seed: int = 1, *, name: str = "{{ run }}", with_analysis: bool = False) -> ConversionJob:
        path = drop(tmp_path / "runs" / f"run{seed}" / "x.pt", seed, with_analysis=with_analysis)
        signature = signature_at(str(path))
        assert signature is not None
        work = library.models_dir / ".work"
        work.mkdir(exist_ok=True)
        return ConversionJob(
            str(path),
            signature,
            str(tmp_path / "runs"),
            str(library.models_dir),
            str(work),
            f"{seed}.tmp",
            MetadataSettings(name=name, tags=("a", "b")),
            by_daemon=True,
        )

    return job


@pytest.fixture
def make(library: ModelLibrary, job_of: Callable[..., ConversionJob]) -> Make:
    """A function that has the daemon's own conversion make a model, once more with sliders if that is wanted."""

    def made(seed: int = 1, **options: Any) -> ModelEntry:
        outcome = worker.convert(job_of(seed, **options))
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


def test_what_another_program_has_added_counts(library: ModelLibrary, make: Make) -> None:
    """A vocoder that the third generation has trained, a rating: in the file or in the entry."""
    entry, other = make(1), make(2)
    library.set_fields(entry.model_id, (("vocoder", '"vocoder": null'),))
    assert InUse().why(library, entry) == ""
    library.set_fields(entry.model_id, (("rating", '"rating": 5'),))
    assert InUse().why(library, entry) == "another program has put 'rating' into its entry"
    path = library.models_dir / other.file_path
    payload = torch.load(path)
    torch.save({**payload, "vocoder_state": None}, path)
    assert InUse().why(library, other) == ""
    torch.save({**payload, "vocoder_state": {"w": torch.ones(3)}}, path)
    assert InUse().why(library, other) == "another program has put 'vocoder_state' into its file"


def test_presets_and_history_that_do_not_tell(
    library: ModelLibrary, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that is not mounted, or may not be looked into, keeps all; it is told once. An empty one keeps none."""
    entry = make(1)
    away = tmp_path / "disk" / "data"
    for in_use, what in ((InUse(presets=away), "presets"), (InUse(history=away), "history")):
        caplog.clear()
        for _ in range(2):
            reason = f"{away.parent} is not there: is it mounted?"
            assert in_use.why(library, entry) == f"the application's {what} cannot be read ({reason})"
        assert [record.args for record in caplog.records] == [
            ("application.unreadable", {"folder": str(away), "what": what, "reason": reason})
        ]
        away.parent.mkdir()
        assert in_use.why(library, entry) == ""
        away.mkdir()
        assert in_use.why(library, entry) == ""
        away.rmdir()
        away.parent.rmdir()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert InUse(presets=loop).why(library, entry).startswith("the application's presets cannot be read (")
    (tmp_path / "history.json").mkdir()
    assert "not a regular file" in InUse(history=tmp_path).why(library, entry)


@pytest.mark.needs_user("root may read everything")
def test_presets_that_may_not_be_looked_into_keep_all(library: ModelLibrary, make: Make, tmp_path: Path) -> None:
    """Those of another user, say."""
    entry = make(1)
    presets = tmp_path / "presets"
    presets.mkdir(mode=0)
    try:
        assert InUse(presets=presets).why(library, entry).startswith("the application's presets cannot be read (")
    finally:
        presets.chmod(0o700)


def test_words_that_were_not_recorded(library: ModelLibrary, make: Make) -> None:
    """Models of earlier versions have no digest: what was changed after they had been made is a person's."""
    entry = make(1)
    header = read_model_header(library.models_dir / entry.file_path)
    made = header.metadata

    def touched(item: ModelEntry, known: dict[str, Any], *, later_s: float = 0) -> bool:
        return is_touched(item, made, Provenance.read(known), header.mtime_ns + int(later_s * 1e9))

    assert not touched(entry, header.provenance)
    other = replace(entry, name="other")
    for recorded in ({"words_digest": ""}, {"words_digest": 3}, {}):
        known = {"converted_at": made.save_date, **recorded}
        assert not touched(entry, known)
        assert touched(other, known)
        assert touched(entry, known, later_s=3600)
        for odd in (None, "", "yesterday", 3):
            assert touched(entry, {**known, "converted_at": odd})
    for item in (other, replace(entry, name=f"{entry.name} (epoch 0)"), replace(entry, dataset_file_count=3)):
        assert touched(item, header.provenance)
    assert words_digest(replace(entry, tags=["d"])) != words_digest(replace(entry, tags=[]))
    assert words_digest(replace(entry, dataset_total_duration_s=3)) == words_digest(
        replace(entry, dataset_total_duration_s=3.0)
    )


def test_old_models_that_were_touched_stay_so(library: ModelLibrary, make: Make) -> None:
    """Also after their sliders have come, with which their file is made anew."""
    entry = make(1)
    path = library.models_dir / entry.file_path
    payload = torch.load(path)
    del payload["provenance"]["words_digest"]
    payload["metadata"]["name"] = "Mine"
    torch.save(payload, path)
    os.utime(path, (2**31, 2**31))
    library.repair_index()
    (known,) = library.entries()
    assert InUse().why(library, known) == "a person has named, described or tagged it"
    again = make(1, with_analysis=True)
    assert (again.name, again.has_analysis) == ("Mine", True)
    assert InUse().why(library, again) == "a person has named, described or tagged it"


def test_a_name_that_is_told_apart_when_it_is_published(
    library: ModelLibrary, job_of: Callable[..., ConversionJob]
) -> None:
    """Is the daemon's own; one in brackets that a person gives it is not."""
    outcomes = [worker.convert(job_of(seed, name="same")) for seed in (1, 2)]
    first, second = publish(library, [outcome for outcome in outcomes if isinstance(outcome, Converted)])
    assert first.entry is not None
    assert second.entry is not None
    assert second.entry.name.startswith("same (")
    assert [InUse().why(library, entry) for entry in (first.entry, second.entry)] == ["", ""]
    edit_model(library, first.entry.model_id, MetadataChange(name=f"same ({first.entry.model_id[:8]})"))
    (edited,) = [entry for entry in library.entries() if entry.model_id == first.entry.model_id]
    assert InUse().why(library, edited)


def test_another_entry_of_the_file_is_in_use(library: ModelLibrary, make: Make, tmp_path: Path) -> None:
    """Then the file stays, whichever entry is asked for; and so it does when one of the two is deleted."""
    entry = make(1)
    library.add_entry(replace(entry, model_id="alias"))
    (tmp_path / "presets" / "alias").mkdir(parents=True)
    (tmp_path / "presets" / "alias" / "presets.json").write_text("{}")
    assert InUse(tmp_path / "presets").why(library, entry) == "it has presets"
    assert trash.discard(library, [entry]) == []
    assert [item.model_id for item in library.entries()] == ["alias"]
    assert (library.models_dir / entry.file_path).exists()


def test_what_another_program_has_put_into_a_model_s_place_stays(
    library: ModelLibrary, job_of: Callable[..., ConversionJob]
) -> None:
    """A conversion of the same checkpoint does not write over a file that has changed: it takes another name."""
    job = job_of(1)
    first = worker.convert(job)
    assert isinstance(first, Converted)
    (done,) = publish(library, [first])
    assert done.entry is not None
    path = library.models_dir / done.entry.file_path
    path.write_bytes(path.read_bytes() + b"theirs")
    theirs = path.read_bytes()
    again = worker.convert(job)
    assert isinstance(again, Converted)
    (second,) = publish(library, [again])
    assert second.entry is not None
    assert second.entry.file_path != path.name
    assert path.read_bytes() == theirs


@pytest.mark.parametrize("name", NO_FILES | LARGE | {"deep": CONTENTS["deep"]})
def test_b46_a_history_that_is_no_small_file_keeps_all(
    library: ModelLibrary, make: Make, tmp_path: Path, name: str
) -> None:
    """It is not waited for, nor read for each model again; one that can be read is believed."""
    entry, history = make(1), tmp_path / "data" / "history.json"
    history.parent.mkdir()
    (NO_FILES | LARGE | CONTENTS)[name][0](history)
    in_use, began = InUse(history=history.parent), time.monotonic()
    for _ in range(20):
        assert in_use.why(library, entry).startswith("the application's history cannot be read (")
    assert time.monotonic() - began < 5.0
    history.rmdir() if history.is_dir() else history.unlink()
    history.write_text("[]")
    assert in_use.why(library, entry) == ""
