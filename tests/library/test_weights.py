"""What is known of the weights in a library's files: once for each content, across renames, processes and restarts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sda_daemon.library import ModelLibrary
from sda_daemon.library.scan import scan_models
from sda_daemon.library.weights import WEIGHTS_FILE_NAME, KnownWeights, Weights, brings_sliders, find_twin
from sda_daemon.models.digest import model_id_of
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.signature import FileSignature
from sda_daemon.state.ledger import Ledger, MadeModel
from sda_daemon.state.policy import LedgerRow, Status
from tests.library.model_files import entry, write_model

DIGEST = "sha256:1"


def weights(library: ModelLibrary, file: str, digest: str = DIGEST, *, is_own: bool = False) -> Weights:
    """What a reader would find in a file of the library."""
    return Weights(file, FileSignature.of((library.models_dir / file).lstat()), digest, is_own)


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """A library with two models of other programs, the second with sliders, and one of this program."""
    made = ModelLibrary(tmp_path / "models")
    made.add_entry(write_model(made.models_dir / "a.distill", "a"))
    made.add_entry(write_model(made.models_dir / "b.sda", "b", has_analysis=True))
    made.add_entry(write_model(made.models_dir / "own.sda", model_id_of(DIGEST)))
    return made


def unknown(library: ModelLibrary) -> list[str]:
    """The files whose weights are not known, in the order in which they are read."""
    return library.weights.unknown(scan_models(library.models_dir), library.entries())


def test_others_are_read_first(library: ModelLibrary) -> None:
    """What may be a model of the application is known before what this program has named."""
    assert unknown(library) == ["a.distill", "b.sda", "own.sda"]
    library.weights.learn(weights(library, "a.distill"))
    assert unknown(library) == ["b.sda", "own.sda"]


def test_the_twin_is_another_program_s(library: ModelLibrary) -> None:
    """Never this program's own model, nor a copy of it; the one with sliders goes first, and it must be there."""
    own = model_id_of(DIGEST)
    library.add_entry(replace(write_model(library.models_dir / "copy.sda", own), model_id="another id"))
    library.weights.learn_all([weights(library, file, is_own=True) for file in ("own.sda", "copy.sda")])
    assert find_twin(library, DIGEST) is None
    library.weights.learn_all([weights(library, "a.distill"), weights(library, "b.sda")])
    twin = find_twin(library, DIGEST)
    assert twin is not None
    assert twin.model_id == "b"
    write_model(library.models_dir / "b.sda", "b", "another content")
    twin = find_twin(library, DIGEST)
    assert twin is not None
    assert twin.model_id == "a"
    assert find_twin(library, "sha256:2") is None


@pytest.mark.parametrize(
    ("new", "known", "expected"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_only_sliders_that_are_lacking_are_new(new: bool, known: bool, expected: bool) -> None:
    """Of the same weights nothing else can be new; it does not matter whether a file or an index tells."""
    for made in (ModelMetadata(has_analysis=new), entry(1, has_analysis=new)):
        for other in (ModelMetadata(has_analysis=known), entry(2, has_analysis=known)):
            assert brings_sliders(made, other) is expected


def test_it_is_kept_across_renames_and_processes(library: ModelLibrary) -> None:
    """What one has saved others know, together with what they have learned themselves; what is gone is forgotten."""
    mine, theirs = library.weights, KnownWeights(library.models_dir)
    mine.learn(weights(library, "a.distill"))
    theirs.learn(weights(library, "b.sda", "sha256:2"))
    mine.save()
    theirs.save()
    assert [item.file for item in mine.of_digest("sha256:2")] == ["b.sda"]
    assert [item.file for item in theirs.of_digest(DIGEST)] == ["a.distill"]
    os.rename(library.models_dir / "a.distill", library.models_dir / "c.distill")
    library.repair_index()
    assert unknown(library) == ["own.sda"]
    twin = find_twin(library, DIGEST)
    assert twin is not None
    assert twin.file_path == "c.distill"
    (library.models_dir / "c.distill").unlink()
    mine.save()
    assert not KnownWeights(library.models_dir).of_digest(DIGEST)


def test_a_passing_failure_is_not_kept(library: ModelLibrary) -> None:
    """What could not be read for now is not tried again by this process, but by the next one."""
    library.weights.learn(replace(weights(library, "a.distill", ""), reason="no permission", is_lasting=False))
    library.weights.learn(replace(weights(library, "b.sda", ""), reason="damaged"))
    library.weights.save()
    assert unknown(library) == ["own.sda"]
    again = ModelLibrary(library.models_dir)
    assert unknown(again) == ["a.distill", "own.sda"]


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "[]",
        '{"version": 1, "files": []}',
        '{"version": 2, "files": [["a", 1]]}',
        '{"version": 2, "files": [["../a", 1, 1, 1, "", false, ""]]}',
    ],
)
def test_an_unreadable_memory_is_none(library: ModelLibrary, raw: str) -> None:
    """It is a cache: without it the files are read again."""
    (library.models_dir / WEIGHTS_FILE_NAME).write_text(raw)
    assert unknown(library) == ["a.distill", "b.sda", "own.sda"]
    library.weights.learn(weights(library, "a.distill"))
    library.weights.save()
    assert unknown(ModelLibrary(library.models_dir)) == ["b.sda", "own.sda"]


def test_the_ledger_follows(tmp_path: Path) -> None:
    """What was converted into one model is known as the other one; the first is not the daemon's any more."""
    ledger = Ledger(tmp_path)
    signature = FileSignature(1, 2, 3)
    ledger.put(
        [
            LedgerRow("/a", "/", signature, Status.DONE, model_id="own"),
            LedgerRow("/b", "/", signature, Status.FAILED, model_id="own"),
            LedgerRow("/c", "/", signature, Status.DONE, model_id="third"),
        ]
    )
    ledger.remember_models([MadeModel("own", DIGEST, "/a", "/")])
    assert ledger.rename_model("own", "theirs") == 2
    rows = [ledger.get(path) for path in ("/a", "/b", "/c")]
    assert [(row.status, row.model_id) for row in rows if row] == [
        (Status.DUPLICATE, "theirs"),
        (Status.FAILED, "theirs"),
        (Status.DONE, "third"),
    ]
    assert ledger.made_model("own") is None
    ledger.close()
