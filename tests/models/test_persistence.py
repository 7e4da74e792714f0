"""Saving, loading and deleting models: the whole cycle, and what each function promises."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.controls import describe_sliders, sliders_to_latent
from sda_daemon.demo.checkpoints import (
    SMALL_MELS,
    checkpoint_dict,
    made_up_analysis,
    small_model,
    write_checkpoint,
    write_small_checkpoint,
)
from sda_daemon.errors import (
    BrokenModelError,
    CheckpointError,
    LibraryError,
    MisfittingWeightsError,
    NewerModelError,
    NonFiniteWeightsError,
    NotAModelError,
)
from sda_daemon.library import ModelLibrary
from sda_daemon.models import (
    MODEL_FILE_EXTENSION,
    MODEL_FORMAT_MARKER,
    SAVED_MODEL_VERSION,
    ConvVAE,
    LoadedModel,
    ModelMetadata,
    delete_model,
    load_model,
    save_model,
    save_model_from_checkpoint,
)
from sda_daemon.models.persistence import _sanitize_filename

CONFIG = SMALL_MELS.to_dict()


def save(models_dir: Path, name: str = "Rain on Tin", seed: int = 0, **facts: Any) -> Path:
    return save_model(small_model(seed), CONFIG, {}, ModelMetadata(name=name, **facts), models_dir)


def test_the_whole_cycle(tmp_path: Path) -> None:
    """Save, index, search, load, move sliders, generate sound, delete."""
    models_dir = tmp_path / "models"
    metadata = ModelMetadata(
        name="Rain on Tin", description="a roof in April", tags=["Wet", "metal"], training_epochs=7
    )
    model, analysis = small_model(), made_up_analysis()
    path = save_model(model, CONFIG, {"kl_weight_max": 0.01}, metadata, models_dir, analysis)
    assert path == models_dir / "rain_on_tin.sda"

    library = ModelLibrary(models_dir)
    (entry,) = library.search("APRIL", tags=["wet"])
    assert (entry.model_id, entry.file_path) == (metadata.model_id, "rain_on_tin.sda")
    assert entry.file_size_bytes == path.stat().st_size
    assert (entry.has_analysis, entry.n_active_components) == (True, 3)
    assert entry.tags == ["Wet", "metal"]

    loaded = load_model(models_dir / entry.file_path)
    assert isinstance(loaded, LoadedModel)
    assert [field.name for field in dataclasses.fields(loaded)] == [
        "model",
        "spectrogram",
        "analysis",
        "metadata",
        "device",
    ]
    assert loaded.metadata == metadata
    assert not loaded.model.training
    assert loaded.device == torch.device("cpu")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert loaded.analysis is not None
    sliders = describe_sliders(loaded.analysis)
    latent = sliders_to_latent([slider.safe[1] for slider in sliders], loaded.analysis)
    with torch.no_grad():
        mel = loaded.model.decode(torch.from_numpy(latent)[None].float(), loaded.model.mel_shape)
        expected = model.decode(torch.from_numpy(latent)[None].float(), model.mel_shape)
    assert torch.allclose(mel, expected, atol=1e-6)
    sound = loaded.spectrogram.mel_to_waveform(mel)
    assert sound.shape == (1, 1, (16 - 1) * SMALL_MELS.hop_length)
    assert torch.isfinite(sound).all()

    assert delete_model(entry.model_id, models_dir) is True
    assert not path.exists()
    assert ModelLibrary(models_dir).count() == 0
    assert delete_model(entry.model_id, models_dir) is False


def test_the_constants_are_the_formats() -> None:
    """What other programs rely on."""
    assert (SAVED_MODEL_VERSION, MODEL_FORMAT_MARKER, MODEL_FILE_EXTENSION) == (1, "sda_model", ".sda")
    assert [(field.name, getattr(ModelMetadata(), field.name)) for field in dataclasses.fields(ModelMetadata)] == [
        ("model_id", ""),
        ("name", "Untitled Model"),
        ("description", ""),
        ("dataset_name", ""),
        ("dataset_file_count", 0),
        ("dataset_total_duration_s", 0.0),
        ("training_date", ""),
        ("save_date", ""),
        ("training_epochs", 0),
        ("final_train_loss", 0.0),
        ("final_val_loss", 0.0),
        ("tags", []),
        ("has_analysis", False),
        ("n_active_components", 0),
    ]


# --- file names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Rain on Tin", "rain_on_tin"),
        ("  A -- b__c ", "a_--_b_c"),
        ("Größe / 3½", "gr_e_3"),
        ("../../etc/passwd", "etc_passwd"),
        ("", "untitled"),
        ("日本", "untitled"),
        ("x" * 300, "x" * 100),
        ("CON", "con"),
    ],
)
def test_names_become_portable_file_names(name: str, stem: str) -> None:
    """The rules of the format, one by one."""
    assert _sanitize_filename(name) == stem


@given(st.text())
def test_any_name_becomes_a_safe_file_name(name: str) -> None:
    """Only the allowed characters, never empty, never too long, and sanitizing again changes nothing."""
    stem = _sanitize_filename(name)
    assert 0 < len(stem) <= 100
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    assert "__" not in stem
    assert not stem.startswith("_")
    assert not stem.endswith("_")
    assert _sanitize_filename(stem) == stem


# --- save_model -------------------------------------------------------------------------------------


def test_id_and_date_are_filled_in_and_given_ones_kept(tmp_path: Path) -> None:
    """A random UUID and the time in UTC; what the caller says stays."""
    before = datetime.now(UTC)
    metadata = ModelMetadata(name="a", has_analysis=True, n_active_components=9)
    save_model(small_model(), CONFIG, {}, metadata, tmp_path)
    assert uuid.UUID(metadata.model_id).version == 4
    assert abs(datetime.fromisoformat(metadata.save_date) - before).total_seconds() < 60
    assert (metadata.has_analysis, metadata.n_active_components) == (False, 0)
    given = ModelMetadata(model_id="mine", name="b", save_date="2024-05-06T07:08:09+00:00")
    path = save_model(small_model(), CONFIG, {}, given, tmp_path)
    assert load_model(path).metadata.model_id == "mine"
    assert load_model(path).metadata.save_date == "2024-05-06T07:08:09+00:00"


def test_the_file_opens_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    """Exactly the format's keys and ours, plain values only, weights without the rest of their storage."""

    class Preset(Enum):
        CALM = "calm"

    training = {"preset": Preset.CALM, "nested": {"more": [Preset.CALM, Path("/a/b")]}, "odd": object()}
    path = save_model(small_model(), CONFIG, training, ModelMetadata(name="a"), tmp_path, made_up_analysis())
    program = """
import sys, torch
content = torch.load(sys.argv[1], weights_only=False)
assert not any(name.startswith("sda_daemon") for name in sys.modules)
print(sorted(content), content["training_config"])
"""
    shown = subprocess.run([sys.executable, "-P", "-c", program, path], capture_output=True, text=True, check=True)
    keys, config = shown.stdout.strip().split("] ", 1)
    assert keys + "]" == str(
        ["decoder_activation", "format", "latent_analysis", "latent_dim", "metadata", "model_state_dict",
         "provenance", "spectrogram_config", "training_config", "version"]
    )  # fmt: skip
    assert config == "{'preset': 'calm', 'nested': {'more': ['calm', '/a/b']}}"


def test_taken_names_get_numbers_and_nothing_is_overwritten(tmp_path: Path) -> None:
    """`x`, `x_1`, `x_2`; also where the file there is none of ours."""
    (tmp_path / "rain_on_tin_1.sda").write_text("someone else's")
    paths = [save(tmp_path, seed=seed).name for seed in range(3)]
    assert paths == ["rain_on_tin.sda", "rain_on_tin_2.sda", "rain_on_tin_3.sda"]
    assert (tmp_path / "rain_on_tin_1.sda").read_text() == "someone else's"


def test_saving_an_id_again_loses_nothing(tmp_path: Path) -> None:
    """The new file has the id, the old one stays under an id of its own, and a repair finds nothing to do."""
    metadata = ModelMetadata(name="a")
    first = save_model(small_model(1), CONFIG, {}, metadata, tmp_path)
    second = save_model(small_model(2), CONFIG, {}, metadata, tmp_path)
    library = ModelLibrary(tmp_path)
    entry = library.get(metadata.model_id)
    assert entry is not None
    assert entry.file_path == second.name
    assert {entry.file_path for entry in library.list_all()} == {first.name, second.name}
    assert library.repair_index() == (0, 0)


def test_two_processes_saving_one_name_at_once(tmp_path: Path) -> None:
    """Each save has a file and an entry of its own; no file of the other is touched."""
    program = """
import sys
from pathlib import Path
from sda_daemon.demo.checkpoints import SMALL_MELS, small_model
from sda_daemon.models import ModelMetadata, save_model
model = small_model(int(sys.argv[2]))
print("ready", flush=True); sys.stdin.readline()
for _ in range(15):
    save_model(model, SMALL_MELS.to_dict(), {}, ModelMetadata(name="same"), Path(sys.argv[1]))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for seed in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n")
        assert process.returncode == 0
    library = ModelLibrary(tmp_path)
    files = {path.name for path in tmp_path.glob("*.sda")}
    assert files == {entry.file_path for entry in library.list_all()}
    assert len(files) == library.count() == 30
    assert library.repair_index() == (0, 0)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".sda-work")] == []


def test_a_failure_leaves_neither_file_nor_entry(tmp_path: Path) -> None:
    """The index cannot be written: no new file, the old index, no leftovers."""
    save(tmp_path, "first")
    index = (tmp_path / "model_library.json").read_bytes()
    backup = tmp_path / "model_library.json.bak"
    backup.unlink(missing_ok=True)
    (backup / "in the way").mkdir(parents=True)  # a folder cannot be replaced by the backup
    with pytest.raises(OSError, match="directory"):
        save(tmp_path, "second")
    shutil.rmtree(backup)
    assert sorted(path.name for path in tmp_path.glob("*.sda")) == ["first.sda"]
    assert (tmp_path / "model_library.json").read_bytes() == index
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp") or p.name.startswith(".sda-work")] == []
    save(tmp_path, "second")
    assert ModelLibrary(tmp_path).count() == 2


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    """A model never run, one that has diverged, one that does not fit its config."""
    with pytest.raises(ValueError, match=r"no decoder\.fc yet"):
        save_model(ConvVAE(), CONFIG, {}, ModelMetadata(), tmp_path)
    sick = small_model()
    with torch.no_grad():
        next(sick.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteWeightsError, match="NaN"):
        save_model(sick, CONFIG, {}, ModelMetadata(), tmp_path)
    with pytest.raises(MisfittingWeightsError, match="48 mel bands"):
        save_model(small_model(), {**CONFIG, "n_mels": 48}, {}, ModelMetadata(), tmp_path)
    with pytest.raises(ValueError, match="n_fft"):
        save_model(small_model(), {**CONFIG, "n_fft": "many"}, {}, ModelMetadata(), tmp_path)
    assert list(tmp_path.glob("*.sda")) == []


def test_leftovers_of_a_killed_save_are_swept(tmp_path: Path) -> None:
    """The next save removes them, but not those of one that is still running."""
    dead = tmp_path / ".sda-work-dead"
    dead.mkdir()
    (dead / "model").write_bytes(b"half")
    save(tmp_path)
    assert not dead.exists()


# --- load_model -------------------------------------------------------------------------------------


def test_a_model_that_was_only_sampled_from_saves_and_loads(tmp_path: Path) -> None:
    """Without encoder heads there are no such weights, and encoding works all the same afterwards."""
    model = ConvVAE(latent_dim=4)
    model.sample(1)
    assert "encoder.fc_mu.weight" not in model.state_dict()
    path = save_model(model, {}, {}, ModelMetadata(name="sampled"), tmp_path)
    loaded = load_model(path)
    assert loaded.model.sample(2).shape == (2, 1, 128, 94)
    assert loaded.model.encode(torch.rand(1, 1, 128, 94))[0].shape == (1, 4)


@pytest.mark.parametrize(("latent_dim", "columns", "n_mels"), [(2, 1, 16), (64, 6, 128), (17, 12, 80), (8, 3, 100)])
def test_other_sizes_load(latent_dim: int, columns: int, n_mels: int, tmp_path: Path) -> None:
    """Latent sizes, chunk lengths and mel bands follow from the weights."""
    model = small_model(latent_dim=latent_dim, columns=columns, n_mels=n_mels)
    config = {**CONFIG, "n_fft": 1024, "n_mels": n_mels}
    loaded = load_model(save_model(model, config, {}, ModelMetadata(name="x"), tmp_path))
    assert loaded.model.latent_dim == latent_dim
    assert loaded.model.sample(1).shape == (1, 1, n_mels, columns * 16)
    mel = torch.rand(1, 1, n_mels, columns * 16)
    torch.manual_seed(0)
    expected = model.encode(mel)[0]
    assert torch.allclose(loaded.model.encode(mel)[0], expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_both_output_activations_load(activation: Any, tmp_path: Path) -> None:
    """Ours say which; the application's generations are told apart by `kl_weight_max`."""
    model = small_model(activation=activation)
    z = torch.randn(3, 8)
    path = save_model(model, CONFIG, {}, ModelMetadata(name="x"), tmp_path)
    with torch.no_grad():
        assert torch.allclose(load_model(path).model.decode(z), model.decode(z), atol=1e-6)
        content = torch.load(path, weights_only=False)
        del content["decoder_activation"]
        content["training_config"] = {"kl_weight_max": 0.01} if activation == "softplus" else {}
        torch.save(content, tmp_path / "theirs.sda")
        assert torch.allclose(load_model(tmp_path / "theirs.sda").model.decode(z), model.decode(z), atol=1e-6)


def application_model(path: Path, **changes: Any) -> Path:
    """A `.sda` as the training application writes it: its enum inside, nothing of ours."""
    whole = checkpoint_dict(small_model().state_dict(), analysis=made_up_analysis())
    content = {
        "format": "sda_model",
        "version": 1,
        "model_state_dict": whole["model_state_dict"],
        "latent_dim": 8,
        "spectrogram_config": whole["spectrogram_config"],
        "latent_analysis": whole["latent_analysis"],
        "training_config": whole["training_config"],
        "metadata": {**ModelMetadata(model_id=str(uuid.uuid4()), name="theirs").to_dict(), "has_analysis": True},
        **changes,
    }
    return write_checkpoint(path, content, sidecar=False)


def test_files_of_the_application_load(tmp_path: Path) -> None:
    """With its enum inside; they are adopted and listed as well."""
    path = application_model(tmp_path / "theirs.sda")
    loaded = load_model(path)
    assert loaded.metadata.name == "theirs"
    assert loaded.analysis is not None
    library = ModelLibrary(tmp_path)
    assert library.repair_index() == (0, 1)
    assert library.list_all()[0].model_id == loaded.metadata.model_id


def test_half_precision_weights_load(tmp_path: Path) -> None:
    """They become single precision, which every layer can compute with."""
    weights = {k: v.half() if v.is_floating_point() else v for k, v in small_model().state_dict().items()}
    loaded = load_model(application_model(tmp_path / "x.sda", model_state_dict=weights))
    assert loaded.model.sample(1).dtype == torch.float32


def test_the_loaded_model_does_not_depend_on_its_file(tmp_path: Path) -> None:
    """The weights are copies: the file may be truncated while the model is in use, and training goes on."""
    path = save(tmp_path)
    loaded = load_model(path)
    os.truncate(path, 0)
    loss = loaded.model(torch.rand(2, 1, 16, 16))[0].sum()
    loss.backward()
    assert loaded.model.decoder.fc is not None
    assert loaded.model.decoder.fc.weight.grad is not None


WEIGHTS = small_model().state_dict()


def without(part: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in WEIGHTS.items() if part not in name}


def with_bias(bias: torch.Tensor) -> dict[str, Any]:
    return {**WEIGHTS, "decoder.fc.bias": bias}


UNLOADABLE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "other marker": ({"format": "other"}, NotAModelError, r"of another program .*\(format 'other'\)"),
    "newer": ({"version": 2}, NewerModelError, "version 2, newer than supported version 1"),
    "odd version": ({"version": "1"}, BrokenModelError, "no usable version"),
    "no metadata": ({"metadata": None}, BrokenModelError, "no metadata"),
    "odd metadata": ({"metadata": {"training_epochs": "ten"}}, BrokenModelError, "training_epochs = 'ten'"),
    "no weights": ({"model_state_dict": None}, BrokenModelError, "no weights"),
    "missing": ({"model_state_dict": without("4.weight")}, BrokenModelError, "lacks"),
    "misfit": ({"model_state_dict": with_bias(torch.zeros(3))}, BrokenModelError, r"decoder\.fc\.bias"),
    "nan": ({"model_state_dict": with_bias(torch.full((256,), float("nan")))}, BrokenModelError, "NaN"),
    "config": ({"spectrogram_config": {"n_mels": 0}}, BrokenModelError, "n_mels"),
    "config type": ({"spectrogram_config": [1]}, BrokenModelError, "expected a dict"),
    "analysis": ({"latent_analysis": {"version": 7}}, BrokenModelError, "analysis version 7 is newer"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNLOADABLE)
def test_what_cannot_be_loaded_says_why(case: str, tmp_path: Path) -> None:
    """Always a ValueError of ours, with the path and the reason."""
    changes, kind, reason = UNLOADABLE[case]
    path = application_model(tmp_path / "sick.sda", **changes)
    with pytest.raises(kind, match=reason) as caught:
        load_model(path)
    assert isinstance(caught.value, ValueError)
    assert str(path) in str(caught.value)


def test_broken_files_say_why(tmp_path: Path) -> None:
    """Truncated, no torch file, a checkpoint, a folder, nothing there."""
    path = save(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrokenModelError, match="truncated"):
        load_model(path)
    path.write_text("hello")
    with pytest.raises(NotAModelError):
        load_model(path)
    with pytest.raises(NotAModelError, match="converted first"):
        load_model(write_small_checkpoint(tmp_path / "x.pt"))
    with pytest.raises(NotAModelError):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.sda"):
        load_model(tmp_path / "nothing.sda")


# --- delete_model -----------------------------------------------------------------------------------


def test_b26_deleting_never_leaves_the_folder(tmp_path: Path) -> None:
    """Doctored entries: relative and absolute paths, a symbolic link, another kind of file."""
    models_dir = tmp_path / "models"
    save(models_dir)
    precious = tmp_path / "precious.sda"
    precious.write_text("mine")
    (models_dir / "link.sda").symlink_to(precious)
    (models_dir / "notes.txt").write_text("notes")
    (models_dir / "folder.sda").mkdir()
    index = models_dir / "model_library.json"
    data = json.loads(index.read_bytes())
    (fields,) = data["models"].values()
    paths = ["../precious.sda", str(precious), "link.sda", "notes.txt", "folder.sda", "./link.sda", ".."]
    for number, file_path in enumerate(paths):
        data["models"][f"evil{number}"] = {**fields, "model_id": f"evil{number}", "file_path": file_path}
    index.write_text(json.dumps(data))
    for number, file_path in enumerate(paths):  # what is no model of this library is not the library's to forget
        assert delete_model(f"evil{number}", models_dir) is (file_path != "notes.txt"), file_path
    assert precious.read_text() == "mine"
    assert (models_dir / "link.sda").is_symlink()
    assert (models_dir / "notes.txt").exists()
    assert (models_dir / "folder.sda").is_dir()
    assert ModelLibrary(models_dir).count() == 1
    assert {entry.file for entry in ModelLibrary(models_dir).foreign()} == {"notes.txt"}


def test_deleting_where_there_is_nothing(tmp_path: Path) -> None:
    """An unknown id, and a folder that is not there (and is not made)."""
    save(tmp_path / "models")
    assert delete_model("unknown", tmp_path / "models") is False
    assert delete_model("unknown", tmp_path / "nowhere") is False
    assert not (tmp_path / "nowhere").exists()


def test_deleting_one_of_two_entries_of_a_file_keeps_it(tmp_path: Path) -> None:
    """A doctored index cannot make one model's deletion take another's file."""
    path = save(tmp_path)
    library = ModelLibrary(tmp_path)
    (entry,) = library.list_all()
    library.add_entry(dataclasses.replace(entry, model_id="double"))
    assert delete_model("double", tmp_path)
    assert path.exists()
    assert delete_model(entry.model_id, tmp_path)
    assert not path.exists()


# --- save_model_from_checkpoint ---------------------------------------------------------------------


def test_a_checkpoint_becomes_a_model(tmp_path: Path) -> None:
    """Epoch, losses and analysis are the checkpoint's own, whatever the caller says; the date is its file's."""
    source = write_small_checkpoint(tmp_path / "x.pt", 3, with_analysis=True, epoch=12, train_loss=0.25, val_loss=0.5)
    os.utime(source, (1_700_000_000, 1_700_000_000))
    metadata = ModelMetadata(name="Mine", tags=["t"], training_epochs=99, final_val_loss=9.0, n_active_components=7)
    path = save_model_from_checkpoint(source, metadata, tmp_path / "models")
    loaded = load_model(path)
    found = loaded.metadata
    assert (found.name, found.tags) == ("Mine", ["t"])
    assert (found.training_epochs, found.final_train_loss, found.final_val_loss) == (12, 0.25, 0.5)
    assert (found.has_analysis, found.n_active_components) == (True, 3)
    assert datetime.fromisoformat(found.training_date) == datetime.fromtimestamp(1_700_000_000, UTC)
    assert loaded.model.latent_dim == 8
    assert ModelLibrary(tmp_path / "models").get(found.model_id) is not None
    content = torch.load(path, weights_only=False)
    assert not {"optimizer_state_dict", "scheduler_state_dict", "metrics_history"} & content.keys()
    assert content["provenance"]["source_file"] == "x.pt"
    given = save_model_from_checkpoint(source, ModelMetadata(training_date="2020-01-01"), tmp_path / "models")
    assert load_model(given).metadata.training_date == "2020-01-01"


def test_the_latent_size_comes_from_the_weights(tmp_path: Path) -> None:
    """What the config says of it does not count."""
    content = checkpoint_dict(small_model(latent_dim=5).state_dict(), latent_dim=64)
    path = save_model_from_checkpoint(write_checkpoint(tmp_path / "x.pt", content), ModelMetadata(), tmp_path / "m")
    assert torch.load(path, weights_only=False)["latent_dim"] == 5
    assert load_model(path).model.latent_dim == 5


def test_a_checkpoint_that_cannot_be_converted_leaves_nothing(tmp_path: Path) -> None:
    """No file, no entry, not even a folder."""
    (tmp_path / "x.pt").write_text("junk")
    with pytest.raises(CheckpointError):
        save_model_from_checkpoint(tmp_path / "x.pt", ModelMetadata(), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_real_samples_become_models(sample_runs: Path, tmp_path: Path) -> None:
    """Saved, indexed and loaded with their weights unchanged."""
    for source in sample_runs.glob("*/checkpoints/*.pt"):
        path = save_model_from_checkpoint(source, ModelMetadata(name=source.parts[-3]), tmp_path)
        assert load_model(path).model.sample(1).shape == (1, 1, 128, 94)
    assert {entry.name for entry in ModelLibrary(tmp_path).list_all()} == {"notes32", "notes64"}


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    """The models folder is a file, or lies in one."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="cannot be made"):
        save(tmp_path / "file")
    with pytest.raises(LibraryError, match="cannot be made"):
        save(tmp_path / "file" / "models")


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "x" * 200_000), ("tags", [1]), ("dataset_total_duration_s", "long"),
     pytest.param("dataset_file_count", 10**400, id="huge")],
)  # fmt: skip
def test_metadata_that_could_not_be_read_again_is_not_saved(field: str, value: Any, tmp_path: Path) -> None:
    """Said at once, by its name; nothing is left of it."""
    model = small_model()
    metadata = dataclasses.replace(ModelMetadata(name="Rain"), **{field: value})
    with pytest.raises(ValueError, match=f"no model file can hold {field} = "):
        save_model(model, SMALL_MELS.to_dict(), {}, metadata, tmp_path)
    assert list(tmp_path.iterdir()) == []
