"""Editing a model: other words, the same weights, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sda_daemon.demo.checkpoints import checkpoint_dict, small_model
from sda_daemon.errors import (
    BrokenModelError,
    ModelExistsError,
    ModelFileError,
    UneditableModelError,
    UnknownModelError,
)
from sda_daemon.library import ModelLibrary
from sda_daemon.library.editing import MetadataChange, edit_model
from sda_daemon.models import ModelMetadata, load_model, save_model, save_model_from_checkpoint
from sda_daemon.models.header import read_model_header

Made = tuple[ModelLibrary, str, Path]


@pytest.fixture
def made(tmp_path: Path, small_checkpoints: Callable[..., Path]) -> Made:
    """A library with one model; its id and its file."""
    metadata = ModelMetadata("id-0", "Rain", description="old words", tags=["a", "b"])
    path = save_model_from_checkpoint(small_checkpoints(0, with_analysis=True), metadata, tmp_path / "models")
    return ModelLibrary(tmp_path / "models"), metadata.model_id, path


def parts(path: Path) -> dict[str, bytes]:
    """Return every part of a model's zip but the pickle."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("data.pkl")}


def content(path: Path) -> dict[str, Any]:
    """Return a model file's dict, read by torch alone."""
    loaded: dict[str, Any] = torch.load(path, weights_only=False)
    return loaded


def test_words_change_and_weights_do_not(made: Made) -> None:
    """All parts but the pickle are the same bytes; in the dict only the metadata differs."""
    library, model_id, path = made
    before, before_parts = content(path), parts(path)
    change = MetadataChange("Rain on tin", "new\nwords ✓", "barn", 12, 754.5, tags=("C", "a"), untags=("B",))
    entry = edit_model(library, model_id, change)
    after = content(path)
    assert parts(path) == before_parts
    assert after["metadata"] == {
        **before["metadata"],
        "name": "Rain on tin",
        "description": "new\nwords ✓",
        "dataset_name": "barn",
        "dataset_file_count": 12,
        "dataset_total_duration_s": 754.5,
        "tags": ["a", "C"],
    }
    assert list(after) == list(before)
    for key in before.keys() - {"metadata", "model_state_dict", "latent_analysis"}:
        assert after[key] == before[key], key
    for name, tensor in before["model_state_dict"].items():
        assert torch.equal(after["model_state_dict"][name], tensor)
    assert (before["latent_analysis"]["pca_mean"] == after["latent_analysis"]["pca_mean"]).all()
    assert entry.file_path == path.name
    assert entry == ModelLibrary(library.models_dir).get(model_id)
    assert entry.file_size_bytes == path.stat().st_size


def test_an_edited_model_opens_everywhere(made: Made) -> None:
    """Torch maps it, this program loads it, and its zip is sound."""
    library, model_id, path = made
    for number in range(3):
        edit_model(library, model_id, MetadataChange(name=f"take {number}" * (number + 1)))
    assert torch.load(path, weights_only=False, mmap=True)["metadata"]["name"] == "take 2" * 3
    loaded = load_model(path)
    assert loaded.metadata.name == "take 2" * 3
    assert loaded.analysis is not None
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert library.plan_repair().findings == ()


def test_old_words_are_gone_from_the_file(made: Made) -> None:
    """What was taken out of a description cannot be found in the file."""
    library, model_id, path = made
    edit_model(library, model_id, MetadataChange(description=""))
    assert b"old words" not in path.read_bytes()


def test_files_of_the_training_application_keep_their_enum(tmp_path: Path) -> None:
    """A foreign class in the file stays as it is: only its own program can know what it means."""
    from sda_daemon.demo.checkpoints import checkpoint_dict, small_model, write_checkpoint

    models = tmp_path / "models"
    dictionary = checkpoint_dict(small_model(3).state_dict())
    metadata = ModelMetadata("id-1", "Theirs").to_dict()
    write_checkpoint(
        models / "theirs.sda", {**dictionary, "format": "sda_model", "latent_dim": 8, "metadata": metadata}
    )
    library = ModelLibrary(models)
    library.repair_index()
    edit_model(library, "id-1", MetadataChange(name="Ours now"))
    with zipfile.ZipFile(models / "theirs.sda") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        assert b"OverfittingPreset" in archive.read(name)
    assert load_model(models / "theirs.sda").metadata.name == "Ours now"


def test_a_flipped_bit_in_the_weights_is_noticed(made: Made) -> None:
    """The copy checks every checksum: a damaged file is not given fresh ones."""
    library, model_id, path = made
    with zipfile.ZipFile(path) as archive:
        biggest = max(archive.infolist(), key=lambda entry: entry.file_size)
    data = bytearray(path.read_bytes())
    data[biggest.header_offset + 200 + biggest.file_size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BrokenModelError, match="damaged"):
        edit_model(library, model_id, MetadataChange(name="x"))
    assert path.read_bytes() == data
    assert not [item for item in library.models_dir.iterdir() if item.name.startswith(".sda-work")]


def test_a_compressed_file_is_refused(made: Made) -> None:
    """Torch never compresses; such a file is not for us to rewrite."""
    library, model_id, path = made
    everything = {}
    with zipfile.ZipFile(path) as archive:
        everything = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in everything.items():
            kind = zipfile.ZIP_STORED if name.endswith("data.pkl") else zipfile.ZIP_DEFLATED
            archive.writestr(name, data, kind)
    with pytest.raises(ModelFileError, match="compressed"):
        edit_model(library, model_id, MetadataChange(name="x"))


def test_unknown_models(made: Made) -> None:
    """No such id, or its file is gone: nothing happens."""
    library, model_id, path = made
    with pytest.raises(UnknownModelError):
        edit_model(library, "nobody", MetadataChange(name="x"))
    path.unlink()
    with pytest.raises(UnknownModelError, match="is gone"):
        edit_model(library, model_id, MetadataChange(name="x"))


@pytest.fixture
def copy_id(made: Made) -> str:
    """The id of a copy of the model, called "The copy"."""
    library, model_id, path = made
    (library.models_dir / "copy.sda").write_bytes(path.read_bytes())
    library.repair_index()
    (copy,) = [entry for entry in library.list_all() if entry.model_id != model_id]
    return edit_model(library, copy.model_id, MetadataChange(name="The copy")).model_id


def test_a_taken_name_is_refused(made: Made, copy_id: str) -> None:
    """The application finds models by name, whatever its case and spaces; a model's own name is not taken."""
    library, model_id, path = made
    before = path.read_bytes()
    for name in ("The copy", "the copy", " The  COPY"):
        with pytest.raises(ModelExistsError, match=r"another model called 'The copy' \(copy\.sda\)"):
            edit_model(library, model_id, MetadataChange(name=name, description="other"))
    assert path.read_bytes() == before
    edit_model(library, copy_id, MetadataChange(name="The copy", description="a copy"))
    assert edit_model(library, copy_id, MetadataChange(name="THE COPY")).name == "THE COPY"


@pytest.mark.usefixtures("copy_id")
def test_a_copy_keeps_its_own_id(made: Made) -> None:
    """A copied file has its original's id inside; its entry's id survives an edit and the next repair."""
    library, _, _ = made
    assert library.plan_repair().findings == ()
    assert {entry.name for entry in library.list_all()} == {"Rain", "The copy"}


def test_only_what_was_asked_for_changes(tmp_path: Path) -> None:
    """Numbers of numpy, fields of a later version, another generation's vocoder: read as what they are, and kept."""
    model = small_model()
    config = checkpoint_dict(model.state_dict())["spectrogram_config"]
    path = save_model(model, config, {}, ModelMetadata(name="Rain", final_val_loss=0.5), tmp_path)
    payload = torch.load(path, weights_only=False)
    payload["metadata"] |= {"training_epochs": np.int64(190), "final_train_loss": np.float32(0.25)}
    payload["metadata"] |= {"dataset_file_count": np.array(12), "a_field_of_tomorrow": [1, {"x": None}]}
    payload |= {"vocoder_state": {"w": torch.arange(5.0)}, "later": (1, np.arange(3), {"deep": [2**70]})}
    torch.save(payload, path)
    library = ModelLibrary(tmp_path)
    library.repair_index()
    (entry,) = library.list_all()
    assert (entry.training_epochs, entry.final_train_loss, entry.dataset_file_count) == (190, 0.25, 12)

    edited = edit_model(library, entry.model_id, MetadataChange(name="Rain on tin"))

    assert edited == dataclasses.replace(entry, name="Rain on tin", file_size_bytes=edited.file_size_bytes)
    after = torch.load(path, weights_only=False)
    assert after["metadata"] == {**payload["metadata"], "name": "Rain on tin"}
    assert {type(value) for value in after["metadata"].values()} <= {str, int, float, bool, list}
    assert torch.equal(after["vocoder_state"]["w"], payload["vocoder_state"]["w"])
    assert after["later"][0] == 1
    assert np.array_equal(after["later"][1], np.arange(3))
    assert after["later"][2] == {"deep": [2**70]}
    for name, tensor in payload["model_state_dict"].items():
        assert torch.equal(after["model_state_dict"][name], tensor)


def test_metadata_that_would_lose_something_is_not_edited(tmp_path: Path) -> None:
    """What plain values cannot hold is not written over."""
    model = small_model()
    path = save_model(model, checkpoint_dict(model.state_dict())["spectrogram_config"], {}, ModelMetadata(), tmp_path)
    payload = torch.load(path, weights_only=False)
    payload["metadata"]["odd"] = torch.ones(1)
    torch.save(payload, path)
    before = path.read_bytes()
    library = ModelLibrary(tmp_path)
    library.repair_index()
    with pytest.raises(UneditableModelError, match=r"something that would be lost: odd \(tensor\)"):
        edit_model(library, library.list_all()[0].model_id, MetadataChange(name="x"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "not known"])
@pytest.mark.parametrize("is_cut_short", [True, False], ids=["crash", "no crash"])
def test_what_only_the_index_says_outlives_an_edit(is_known: bool, is_cut_short: bool, made: Made) -> None:
    """The application changes the index alone; an edit, and a crash between file and index, leave that as it is."""
    library, model_id, path = made
    library.repair_index()
    scan = library.models_dir / ".model_library.scan.json"
    entry = library.get(model_id)
    assert entry is not None
    theirs = dataclasses.replace(entry, name="Warm", tags=["a", "mine"], dataset_file_count=9)
    text = library.index_path.read_text()
    library.index_path.write_text(text.replace(json.dumps(entry.to_dict()), json.dumps(theirs.to_dict())))
    if not is_known:
        scan.unlink()
    library = ModelLibrary(library.models_dir)
    assert library.get(model_id) == theirs
    before = library.index_path.read_bytes()
    edited = edit_model(library, model_id, MetadataChange(description="new words"))
    expected = dataclasses.replace(theirs, description="new words", file_size_bytes=path.stat().st_size)
    assert edited == expected
    if is_cut_short:
        library.index_path.write_bytes(before)
        library = ModelLibrary(library.models_dir)
        library.repair_index()
    assert ModelLibrary(library.models_dir).get(model_id) == expected
    assert read_model_header(path).metadata.name == "Rain"
    tagged = edit_model(ModelLibrary(library.models_dir), model_id, MetadataChange(tags=("new",)))
    assert tagged.tags == read_model_header(path).metadata.tags == ["a", "mine", "new"]
