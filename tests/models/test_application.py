"""b32: what the later generations of the training application wrote themselves is read, verified and edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.conversion.verification import VerdictKind, check_model
from sda_daemon.library import ModelLibrary
from sda_daemon.library.editing import MetadataChange, edit_model
from sda_daemon.models import load_model
from sda_daemon.models.contents import FileKind
from sda_daemon.models.formats import format_of_name
from sda_daemon.models.header import read_model_details, read_model_header
from sda_daemon.models.inspection import inspect_file


def model_in(folder: Path) -> Path:
    """The one model file of a real library."""
    (path,) = (path for path in folder.iterdir() if path.suffix != ".json")
    return path


def test_b32_real_models_are_read(application_library: Path) -> None:
    """Header, details, inspection and loading agree on what it is."""
    path = model_in(application_library)
    (fields,) = json.loads((application_library / "model_library.json").read_bytes())["models"].values()
    header = read_model_header(path)
    assert header.format is format_of_name(path.name)
    assert (header.metadata.model_id, header.metadata.name) == (fields["model_id"], fields["name"])
    details = read_model_details(path)
    assert details.decoder_activation == "softplus"
    assert inspect_file(path).kind is FileKind.MODEL
    loaded = load_model(path)
    assert loaded.model.output_activation == "softplus"
    assert loaded.metadata.n_active_components == fields["n_active_components"]
    torch.manual_seed(0)
    assert loaded.model.sample(1).shape == (1, 1, 128, 94)


def test_b32_real_models_are_verified(application_library: Path) -> None:
    """They open; their application records no digest of the weights."""
    verdict = check_model(str(model_in(application_library)))
    assert (verdict.kind, verdict.reason) == (VerdictKind.UNRECORDED, "")


def test_b32_real_models_are_edited(application_library: Path) -> None:
    """The words change, the weights do not, and the file stays one of its generation."""
    library = ModelLibrary(application_library)
    (before,) = library.list_all()
    path = model_in(application_library)
    weights = load_model(path).model.state_dict()
    entry = edit_model(library, before.model_id, MetadataChange(name="Edited", tags=("keeper",)))
    assert (entry.name, entry.tags, entry.file_path) == ("Edited", ["keeper"], path.name)
    header = read_model_header(path)
    assert (header.metadata.name, header.format) == ("Edited", format_of_name(path.name))
    edited = load_model(path).model.state_dict()
    assert all(torch.equal(edited[name], tensor) for name, tensor in weights.items())
    assert library.plan_repair().findings == ()


@pytest.mark.parametrize("key", ["vocoder_state", "a key of the future"])
def test_b32_further_keys_survive_an_edit(tmp_path: Path, key: str) -> None:
    """Tensors inside them too, and what the index says of the vocoder."""
    from sda_daemon.demo.checkpoints import SMALL_MELS, small_model
    from sda_daemon.models import ModelMetadata, save_model

    made = save_model(small_model(1), SMALL_MELS.to_dict(), {"kl_weight_max": 0.01}, ModelMetadata(), tmp_path / "made")
    payload: dict[str, Any] = torch.load(made, weights_only=True)
    state = {"type": "hifigan_v2", "config": {"rates": [8, 8, 2]}, "weights": {"a": torch.arange(6.0).reshape(2, 3)}}
    path = tmp_path / "models" / "rain.distillgan"
    path.parent.mkdir()
    torch.save({**payload, "format": "distillgan_model", key: state, "shared": state["weights"]}, path)
    library = ModelLibrary(path.parent)
    library.repair_index()
    (entry,) = library.list_all()
    edit_model(library, entry.model_id, MetadataChange(description="new words"))
    after = torch.load(path, weights_only=True)
    assert after["metadata"]["description"] == "new words"
    assert after["format"] == "distillgan_model"
    assert after[key]["config"] == state["config"]
    assert torch.equal(after[key]["weights"]["a"], torch.arange(6.0).reshape(2, 3))
    assert after["shared"]["a"].data_ptr() == after[key]["weights"]["a"].data_ptr()
