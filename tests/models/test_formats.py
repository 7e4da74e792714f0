"""The table of the application's generations, and what follows from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sda_daemon.models import MODEL_FILE_EXTENSION, MODEL_FORMAT_MARKER
from sda_daemon.models.formats import (
    DISTILL,
    DISTILLGAN,
    FORMATS,
    NEWEST_INDEX_VERSION,
    SDA,
    ModelFormat,
    format_called,
    format_of_marker,
    format_of_name,
    index_fields,
    stored_activation,
    trained_activation,
    vocoder_fields,
    without_ending,
)
from sda_daemon.models.metadata import file_name_candidates


def test_the_table_is_the_applications() -> None:
    """Name, ending, marker, version of the index and activation of all three generations."""
    table = [(item.name, item.ending, item.marker, item.index_version, item.activation) for item in FORMATS]
    assert table == [
        ("sda", ".sda", "sda_model", 1, "sigmoid"),
        ("distill", ".distill", "distill_model", 1, "softplus"),
        ("distillgan", ".distillgan", "distillgan_model", 2, "softplus"),
    ]
    assert (SDA.ending, SDA.marker) == (MODEL_FILE_EXTENSION, MODEL_FORMAT_MARKER)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SDA.ending = ".x"  # type: ignore[misc]


@pytest.mark.parametrize("item", FORMATS, ids=lambda item: item.name)
def test_each_is_found_by_each_of_its_signs(item: ModelFormat) -> None:
    """One ending being the beginning of another leads nobody astray."""
    assert format_of_name(f"rain{item.ending}") is item
    assert format_of_marker(item.marker) is item
    assert format_called(item.name) is item
    assert without_ending(f"a.b{item.ending}") == "a.b"
    names = file_name_candidates("Rain on tin", item.ending)
    assert [next(names), next(names)] == [f"rain_on_tin{item.ending}", f"rain_on_tin_1{item.ending}"]


@pytest.mark.parametrize("name", ["rain", "rain.pt", "rain.vqvae", "rain.SDA", "rain.distillery", "sda", ""])
def test_other_names_are_of_no_format(name: str) -> None:
    """They belong to someone else."""
    assert format_of_name(name) is None
    assert without_ending(name) == name


@pytest.mark.parametrize("marker", [None, "", "sda", "SDA_model", 1, [], {}, b"sda_model"])
def test_other_markers_are_of_no_format(marker: Any) -> None:
    """Whatever stands in a file."""
    assert format_of_marker(marker) is None


def test_fields_of_an_index() -> None:
    """What an entry has beyond the 16 fields follows from the version."""
    assert index_fields(1) == ()
    assert index_fields(2) == ("vocoder",)
    assert NEWEST_INDEX_VERSION == 2


def test_which_activation_a_training_and_a_model_have() -> None:
    """What this program wrote down counts first, then the generation, then the training config."""
    late, early = {"kl_weight_max": 0.01}, {"latent_dim": 64}
    assert (trained_activation(late), trained_activation(early)) == ("softplus", "sigmoid")
    assert stored_activation({"format": "sda_model"}, early) == "sigmoid"
    assert stored_activation({"format": "sda_model"}, late) == "softplus"
    assert stored_activation({"format": "sda_model", "decoder_activation": "sigmoid"}, late) == "sigmoid"
    for later in (DISTILL, DISTILLGAN):
        assert stored_activation({"format": later.marker}, early) == "softplus"
        assert stored_activation({"format": later.marker, "decoder_activation": "sigmoid"}, late) == "sigmoid"
        assert stored_activation({"format": later.marker, "decoder_activation": ["sigmoid"]}, early) == "softplus"


TRAINED = {"epochs": 40, "final_loss": 0.25, "training_date": "2026-02-03T04:05:06+00:00"}


def test_what_the_index_says_of_a_vocoder() -> None:
    """Type and three facts of its training, as the third generation writes them."""
    state = {"type": "hifigan_v2", "training_metadata": {**TRAINED, "more": 1}, "weights": object()}
    assert vocoder_fields({"vocoder_state": state}) == {"type": "hifigan_v2", **TRAINED}


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {},
        {"type": "x"},
        {"type": None, "training_metadata": TRAINED},
        {"type": "x", "training_metadata": {**TRAINED, "epochs": True}},
        {"type": "x", "training_metadata": {**TRAINED, "final_loss": "low"}},
        {"type": "x", "training_metadata": {**TRAINED, "training_date": 0}},
    ],
)
def test_a_vocoder_that_is_not_understood_is_not_told_of(state: Any) -> None:
    """Nothing is made up."""
    assert vocoder_fields({"vocoder_state": state}) is None
