"""b33: which format a model is written in, and what is said of what will not play right."""

from __future__ import annotations

from typing import Any

import pytest

from sda_daemon.models.formats import DISTILL, DISTILLGAN, FORMATS, SDA, Activation, ModelFormat
from sda_daemon.models.playability import (
    AUTO,
    LibraryUse,
    activation_trouble,
    choose_format,
    training_package,
    troubles,
)
from sda_daemon.settings.schema import RuleSettings, Settings

FIRST, LATER = training_package(SDA), training_package(DISTILL)


def never() -> LibraryUse:
    raise AssertionError("the library need not be looked at")


def test_the_settings_know_every_choice() -> None:
    """The config and its rules take what the table has, and `auto`."""
    choices = [*(item.name for item in FORMATS), AUTO]
    schema = Settings.model_json_schema()
    assert schema["properties"]["models_format"]["enum"] == choices
    rule: Any = RuleSettings.model_json_schema()["properties"]["models_format"]["anyOf"][0]
    assert rule["enum"] == choices


@pytest.mark.parametrize("wanted", FORMATS, ids=lambda item: item.name)
@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_b33_what_is_asked_for_is_written_unless_it_would_be_decoded_wrong(
    wanted: ModelFormat, activation: Activation
) -> None:
    """Sigmoid weights become `.sda` whatever is asked for, and the reason names both."""
    chosen, why_not = choose_format(wanted.name, activation, "", never)
    if wanted is SDA or activation == "softplus":
        assert (chosen, why_not) == (wanted, None)
    else:
        assert chosen is SDA
        assert why_not is not None
        assert f"trained to end in a sigmoid, and the application that opens {wanted.ending}" in why_not.reason
        assert "models_format: sda" in why_not.hint


@pytest.mark.parametrize(
    ("activation", "trained_by", "use", "expected"),
    [
        ("sigmoid", FIRST, None, SDA),
        ("softplus", FIRST, None, SDA),
        ("sigmoid", "", None, SDA),
        ("softplus", LATER, LibraryUse(), DISTILL),
        ("softplus", LATER, LibraryUse(2), DISTILLGAN),
        ("softplus", LATER, LibraryUse(1, ["a.sda", "b.distillgan"]), DISTILLGAN),
        ("softplus", LATER, LibraryUse(1, ["a.distill", "b.distillgan"]), DISTILL),
        ("softplus", LATER, LibraryUse(2, ["a.distill"]), DISTILLGAN),
        ("softplus", "", LibraryUse(1, ["a.sda"]), DISTILL),
        ("softplus", "", LibraryUse(2, ["a.sda"]), DISTILLGAN),
    ],
)
def test_b33_auto_is_for_the_generation_that_trained_it(
    activation: Activation, trained_by: str, use: LibraryUse | None, expected: ModelFormat
) -> None:
    """Told by the enum's package, then the activation; the second and third generation by the library's own files."""
    chosen, why_not = choose_format(AUTO, activation, trained_by, (lambda: use) if use is not None else never)
    assert (chosen, why_not) == (expected, None)


def test_b33_auto_and_an_early_revision_of_a_later_generation() -> None:
    """Its package says `.distill`, its activation is that of the first: it is `.sda`, and it is said why."""
    chosen, why_not = choose_format(AUTO, "sigmoid", LATER, LibraryUse)
    assert chosen is SDA
    assert why_not is not None
    assert ".distill" in why_not.reason


@pytest.mark.parametrize("chosen", FORMATS, ids=lambda item: item.name)
@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_b33_the_wrong_activation_is_told(chosen: ModelFormat, activation: Activation) -> None:
    """With the setting to change."""
    trouble = activation_trouble(chosen, activation)
    assert (trouble is None) == (chosen.activation == activation)
    if trouble is not None:
        assert "sounds wrong there" in trouble.reason
        assert "models_format: distill, distillgan or auto" in trouble.hint


@pytest.mark.parametrize(
    ("columns", "sample_rate", "hop_length", "fits"),
    [(6, 48_000, 512, True), (7, 48_000, 512, False), (3, 48_000, 512, False), (4, 16_000, 256, True),
     (1, 16_000, 256, False), (3, 22_050, 512, True), (11, 48_000, 512, False)],
)  # fmt: skip
def test_b33_another_chunk_length_is_told(columns: int, sample_rate: int, hop_length: int, fits: bool) -> None:
    """The application computes the size of feature maps from one second: sample rate // hop length + 1 frames."""
    found = troubles(DISTILL, "softplus", columns, sample_rate, hop_length)
    assert (found == []) == fits
    if not fits:
        assert f"feature maps {columns} wide" in found[0].reason
        assert "cannot load it" in str(found[0])
