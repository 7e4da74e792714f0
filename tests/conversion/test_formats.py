"""b33: conversions write what the application of a generation can play, and say where they cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.conversion.job import ConversionJob, Converted, Failed
from sda_daemon.conversion.publish import Action, Published, publish
from sda_daemon.conversion.worker import convert, preview
from sda_daemon.library import ModelLibrary
from sda_daemon.models import load_model
from sda_daemon.models.formats import DISTILL, DISTILLGAN, FORMATS, SDA, ModelFormat
from sda_daemon.models.metadata import METADATA_FIELDS
from sda_daemon.settings.schema import MetadataSettings, RuleSettings
from sda_daemon.signature import signature_at
from tests.library.model_files import write_model
from tests.models.generations import opened_elsewhere, write_generation


def job_for(library: ModelLibrary, path: Path, models_format: str = "auto", **facts: Any) -> ConversionJob:
    """A job whose unfinished file lies beside the library."""
    signature = signature_at(str(path))
    assert signature is not None
    work = library.models_dir.parent / "work"
    work.mkdir(exist_ok=True)
    job = ConversionJob(
        str(path), signature, str(path.parent), str(library.models_dir), str(work), f"{path.stem}.tmp",
        MetadataSettings(), models_format=models_format, by_daemon=True,
    )  # fmt: skip
    return replace(job, **facts)


def converted(job: ConversionJob) -> Converted:
    outcome = convert(job)
    assert isinstance(outcome, Converted), outcome
    return outcome


def published(library: ModelLibrary, job: ConversionJob, replacing: str = "") -> Published:
    (done,) = publish(library, [converted(job)], {job.path: replacing} if replacing else {})
    return done


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """An empty library."""
    return ModelLibrary(tmp_path / "models")


@pytest.mark.parametrize("models_format", ["auto", "own"])
@pytest.mark.parametrize("generation", FORMATS, ids=lambda item: item.name)
def test_b33_each_generation_gets_what_it_reads(
    library: ModelLibrary, tmp_path: Path, generation: ModelFormat, models_format: str
) -> None:
    """Ending and marker are its own, the metadata has 14 keys, and decoding uses its activation."""
    if generation is DISTILLGAN:
        write_model(library.models_dir / "there.distillgan")
        library.repair_index()
    source = write_generation(tmp_path / "run" / "x.pt", generation)
    wanted = generation.name if models_format == "own" else "auto"
    done = published(library, job_for(library, source, wanted))
    assert done.entry is not None
    assert done.converted.troubles == ()
    assert done.entry.file_path == f"x_epoch_0{generation.ending}"
    path = library.models_dir / done.entry.file_path
    keys = ",".join(METADATA_FIELDS)
    assert opened_elsewhere(path, tmp_path) == [generation.marker, "1", keys, generation.activation]
    model = load_model(path).model
    assert model.output_activation == generation.activation
    z = torch.randn(4, model.latent_dim)
    with torch.no_grad():
        inner = model.decoder.deconvs[:-1](model.decoder.fc(z).view(4, 256, *model.decoder.spatial))  # type: ignore[misc]
        ends = torch.sigmoid if generation.activation == "sigmoid" else torch.nn.functional.softplus
        assert torch.equal(model.decode(z), ends(inner))
    assert library.repair_index() == (0, 0)


def test_b33_wrong_combinations_are_told_in_one_trouble_each(library: ModelLibrary, tmp_path: Path) -> None:
    """Never the wrong activation in a later format; softplus in `.sda`, and another chunk length, with the setting."""
    first, later = (write_generation(tmp_path / f"{item.name}.pt", item) for item in (SDA, DISTILL))
    odd = write_generation(tmp_path / "odd.pt", DISTILL, 1, columns=2)
    early = write_generation(tmp_path / "early.pt", DISTILL, 2, activation="sigmoid")
    for source, wanted, expected, words in (
        (first, "distill", SDA, ["it is written as .sda instead"]),
        (first, "distillgan", SDA, ["it is written as .sda instead"]),
        (first, "sda", SDA, []),
        (later, "sda", SDA, ["sounds wrong there"]),
        (later, "distill", DISTILL, []),
        (odd, "auto", DISTILL, ["another length than one second"]),
        (odd, "sda", SDA, ["sounds wrong there", "another length than one second"]),
        (early, "auto", SDA, ["it is written as .sda instead"]),
    ):
        outcome = converted(job_for(library, source, wanted))
        assert outcome.format_name == expected.name
        assert len(outcome.troubles) == len(words)
        assert all(word in trouble.reason for word, trouble in zip(words, outcome.troubles, strict=True))
        (Path(outcome.job.work_dir) / outcome.job.temporary_name).unlink()
        shown = preview(replace(outcome.job, temporary_name=""))
        assert not isinstance(shown, Failed)
        assert (shown.format_name, shown.troubles) == (outcome.format_name, outcome.troubles)


def test_b33_checkpoints_that_name_no_application(library: ModelLibrary, tmp_path: Path) -> None:
    """Bare weights, and those without an enum: the activation decides, and the library."""
    first = write_generation(tmp_path / "a.pt", SDA, with_enum=False)
    later = write_generation(tmp_path / "b.pt", DISTILL, with_enum=False)
    bare = tmp_path / "c.pt"
    torch.save(torch.load(first, weights_only=False)["model_state_dict"], bare)
    names = {source.stem: converted(job_for(library, source)).format_name for source in (first, later)}
    assert names == {"a": "sda", "b": "distill"}
    write_model(library.models_dir / "x.distillgan")
    library.repair_index()
    again = job_for(library, later, temporary_name="b2.tmp")
    assert converted(again).format_name == "distillgan"


def test_b33_rules_say_otherwise(library: ModelLibrary, tmp_path: Path) -> None:
    """By path and by condition; later rules override earlier ones."""
    source = write_generation(tmp_path / "run" / "x.pt", DISTILL, epoch=12)
    rules: tuple[RuleSettings, ...] = (
        RuleSettings(match="*", models_format="distill"),
        RuleSettings(match="*", when="epoch > 20", skip=True),
    )
    assert converted(job_for(library, source, "sda", rules=rules)).format_name == "distill"
    rules = (*rules, RuleSettings(match="x*", when="epoch > 10", models_format="distillgan"))
    assert converted(job_for(library, source, "sda", rules=rules, temporary_name="2")).format_name == "distillgan"
    rules = (*rules, RuleSettings(match="y*", models_format="sda"))
    assert converted(job_for(library, source, "sda", rules=rules, temporary_name="3")).format_name == "distillgan"


def test_b32_sliders_that_come_later_keep_what_another_program_has_put_into_the_file(
    library: ModelLibrary, tmp_path: Path
) -> None:
    """The model keeps its format, whatever is set by then, and a vocoder that was trained for it meanwhile."""
    source = write_generation(tmp_path / "run" / "x.pt", DISTILLGAN, with_analysis=False)
    done = published(library, job_for(library, source, "distillgan"))
    assert done.entry is not None
    path = library.models_dir / done.entry.file_path
    payload = torch.load(path, weights_only=False)
    state = {"type": "hifigan_v2", "weights": {"a": torch.arange(6.0)}, "training_metadata": {"epochs": 3}}
    torch.save({**payload, "vocoder_state": state, "future": {"a": [1.0, None]}}, path)
    library.repair_index()
    write_generation(source, DISTILLGAN)
    done = published(library, job_for(library, source, "sda"))
    assert done.entry is not None
    assert (done.action, done.entry.file_path, done.entry.has_analysis) == (Action.UPDATED, path.name, True)
    after = torch.load(path, weights_only=False)
    assert after["format"] == DISTILLGAN.marker
    assert after["future"] == {"a": [1.0, None]}
    assert after["vocoder_state"]["training_metadata"] == {"epochs": 3}
    assert torch.equal(after["vocoder_state"]["weights"]["a"], torch.arange(6.0))
    assert load_model(path).analysis is not None
    assert library.repair_index() == (0, 0)


def test_b33_another_model_of_the_same_path_may_have_another_ending(library: ModelLibrary, tmp_path: Path) -> None:
    """The one that it takes the place of is gone, file and entry."""
    source = write_generation(tmp_path / "run" / "x.pt", DISTILL, 1)
    first = published(library, job_for(library, source, "sda"))
    write_generation(source, DISTILL, 2)
    assert first.entry is not None
    second = published(library, job_for(library, source, "distill"), replacing=first.entry.model_id)
    assert second.entry is not None
    assert (second.action, second.entry.file_path) == (Action.REPLACED, "x_epoch_0.distill")
    assert [entry.file_path for entry in library.list_all()] == ["x_epoch_0.distill"]
    assert not (library.models_dir / "x_epoch_0.sda").exists()
    assert library.plan_repair().findings == ()


def test_b33_the_same_weights_that_came_meanwhile_in_another_format(library: ModelLibrary, tmp_path: Path) -> None:
    """The file that is there keeps its ending: what was made is made again, in its format."""
    plain = write_generation(tmp_path / "run" / "x.pt", DISTILL, with_analysis=False)
    (tmp_path / "sliders").mkdir()
    job = job_for(library, write_generation(tmp_path / "sliders" / "y.pt", DISTILL), "sda")
    made = converted(job)
    there = published(library, job_for(library, plain, "distill"))
    (done,) = publish(library, [made])
    assert (done.action, done.entry) == (Action.AGAIN, None)
    again = published(library, job)
    assert there.entry is not None
    assert again.entry is not None
    assert (again.action, again.entry.file_path) == (Action.UPDATED, there.entry.file_path)
    assert library.plan_repair().findings == ()


def test_b31_a_foreign_entry_under_the_models_id_is_not_written_over(library: ModelLibrary, tmp_path: Path) -> None:
    """The conversion is refused, once, and says what stands there."""
    source = write_generation(tmp_path / "run" / "x.pt", DISTILL)
    model_id = converted(job_for(library, source)).metadata.model_id
    member = f'"{model_id}": ["of a time to come"]'
    library.index_path.write_text(f'{{"version": 1, "models": {{{member}}}}}')
    outcome = convert(job_for(library, source))
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.permanent) == ("foreign_entry", True)
    assert member in library.index_path.read_text()
