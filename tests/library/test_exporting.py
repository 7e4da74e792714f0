"""b33: a model for another generation: the marker and the ending change, and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.conversion.verification import VerdictKind, check_model
from sda_daemon.errors import LibraryError, ModelExistsError, UnplayableModelError
from sda_daemon.library import ModelEntry, ModelLibrary
from sda_daemon.library.exporting import export_model
from sda_daemon.models import ModelMetadata, load_model, save_model_from_checkpoint
from sda_daemon.models.formats import DISTILL, DISTILLGAN, FORMATS, SDA, ModelFormat
from sda_daemon.models.header import read_model_header
from sda_daemon.models.metadata import METADATA_FIELDS
from tests.models.generations import opened_elsewhere, write_generation
from tests.models.test_application import model_in

Made = tuple[ModelLibrary, ModelEntry]


def made(folder: Path, generation: ModelFormat = DISTILL) -> Made:
    """A library with one model of a training of this generation, as `.sda`."""
    source = write_generation(folder / "x.pt", generation)
    metadata = ModelMetadata("id-1", "Rain", description="drops", tags=["a"])
    save_model_from_checkpoint(source, metadata, folder / "models")
    library = ModelLibrary(folder / "models")
    return library, library.list_all()[0]


def parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("data.pkl")}


def content(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=False)
    return loaded


@pytest.mark.parametrize("chosen", [DISTILL, DISTILLGAN], ids=lambda item: item.name)
def test_b33_there_and_back_again(tmp_path: Path, chosen: ModelFormat) -> None:
    """Every part keeps its bytes, the dict all keys but the marker; the copy opens with torch and numpy alone."""
    library, entry = made(tmp_path)
    source = library.models_dir / entry.file_path
    there, found = export_model(library.models_dir, entry, tmp_path, chosen)
    assert (there, found) == (tmp_path / f"rain{chosen.ending}", [])
    assert opened_elsewhere(there, tmp_path) == [chosen.marker, "1", ",".join(METADATA_FIELDS), "softplus"]
    assert parts(there) == parts(source)
    before, after = content(source), content(there)
    assert list(after) == list(before)
    for key in before.keys() - {"format", "model_state_dict", "latent_analysis"}:
        assert after[key] == before[key]
    assert check_model(str(there)).kind is VerdictKind.OK
    other = ModelLibrary(tmp_path / "other")
    there.rename(other.models_dir / there.name)
    other.repair_index()
    (theirs,) = other.list_all()
    assert (theirs.model_id, theirs.name, theirs.tags) == ("id-1", "Rain", ["a"])
    back, found = export_model(other.models_dir, theirs, tmp_path / "back.sda", SDA)
    assert parts(back) == parts(source)
    assert content(back)["format"] == SDA.marker
    assert ["sounds wrong there" in trouble.reason for trouble in found] == [True]
    assert "--format distill" in found[0].hint
    for name, tensor in content(source)["model_state_dict"].items():
        assert torch.equal(content(back)["model_state_dict"][name], tensor)


def test_b33_sigmoid_weights_go_into_no_later_format(tmp_path: Path) -> None:
    """It is refused, and nothing is left behind."""
    library, entry = made(tmp_path, SDA)
    for later in (DISTILL, DISTILLGAN):
        with pytest.raises(UnplayableModelError, match="ends in a sigmoid"):
            export_model(library.models_dir, entry, tmp_path, later)
        with pytest.raises(UnplayableModelError):
            export_model(library.models_dir, entry, tmp_path / f"y{later.ending}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "x.pt", "x.pt.meta.json"]
    assert export_model(library.models_dir, entry, tmp_path, SDA)[1] == []


def test_the_ending_of_the_new_name_says_the_format(tmp_path: Path) -> None:
    """Where nothing else does; one that contradicts is an error."""
    library, entry = made(tmp_path)
    path, _ = export_model(library.models_dir, entry, tmp_path / "other.distillgan")
    assert read_model_header(path).format is DISTILLGAN
    path, _ = export_model(library.models_dir, entry, tmp_path / "no ending")
    assert path.read_bytes() == (library.models_dir / entry.file_path).read_bytes()
    with pytest.raises(LibraryError, match=r"Call it x\.distill$"):
        export_model(library.models_dir, entry, tmp_path / "x.sda", DISTILL)
    with pytest.raises(ModelExistsError):
        export_model(library.models_dir, entry, tmp_path / "other.distillgan")
    export_model(library.models_dir, entry, tmp_path / "other.distillgan", replace=True)


def test_a_damaged_model_can_be_taken_out_as_it_is(tmp_path: Path) -> None:
    """A plain copy asks nothing of the file."""
    library, entry = made(tmp_path)
    path = library.models_dir / entry.file_path
    path.write_bytes(path.read_bytes()[:5000])
    copy, found = export_model(library.models_dir, entry, tmp_path)
    assert (copy.read_bytes(), found) == (path.read_bytes(), [])


def test_b33_metadata_has_exactly_the_fields_that_the_application_knows(tmp_path: Path) -> None:
    """An unknown one is an error there; what else is in the file goes along."""
    library, entry = made(tmp_path)
    path = library.models_dir / entry.file_path
    payload = content(path)
    payload["metadata"] = {"mood": "wet", **payload["metadata"]}
    del payload["metadata"]["tags"]
    torch.save({**payload, "vocoder_state": {"weights": torch.arange(3.0)}, "future": [1, None]}, path)
    library.repair_index()
    copy, _ = export_model(library.models_dir, entry, tmp_path, DISTILLGAN)
    after = content(copy)
    assert tuple(after["metadata"]) == METADATA_FIELDS
    assert (after["metadata"]["name"], after["metadata"]["tags"], after["future"]) == ("Rain", [], [1, None])
    assert torch.equal(after["vocoder_state"]["weights"], torch.arange(3.0))


def test_b33_real_models_go_to_the_first_generation_and_back(application_library: Path, tmp_path: Path) -> None:
    """What the application itself has written comes back bit for bit, and decodes as before."""
    library = ModelLibrary(application_library)
    (entry,) = library.list_all()
    own = next(item for item in FORMATS if entry.file_path.endswith(item.ending))
    first, found = export_model(application_library, entry, tmp_path, SDA)
    assert len(found) == 1
    other = ModelLibrary(tmp_path / "other")
    first.rename(other.models_dir / first.name)
    other.repair_index()
    back, _ = export_model(other.models_dir, other.list_all()[0], tmp_path, own)
    assert back.name == entry.file_path
    assert parts(back) == parts(model_in(application_library))
    one, two = load_model(model_in(application_library)), load_model(back)
    z = torch.randn(2, one.model.latent_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(one.model.decode(z), two.model.decode(z))
