"""Which model a person means."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.errors import AmbiguousModelError, UnknownModelError
from sda_daemon.library import ModelEntry
from sda_daemon.library.lookup import find_entry, short_ids
from sda_daemon.models import ModelMetadata


def entry(model_id: str, name: str, file: str = "") -> ModelEntry:
    """Return an entry with an id, a name and a file."""
    return ModelEntry.from_metadata(ModelMetadata(model_id, name), file or f"{name.lower()}.sda", 1)


RAIN, WIND, WIND_2 = entry("1a2f-1", "Rain"), entry("9c0d-2", "Wind"), entry("9c0e-3", "Wind", "wind_1.sda")
TOO = dataclasses.replace(RAIN, model_id="Rain", name="Other", file_path="other.sda")
ALL = [RAIN, WIND, WIND_2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1a2f-1", RAIN),
        ("1a", RAIN),
        ("1A2F", RAIN),
        ("Rain", RAIN),
        (" rAIN ", RAIN),
        ("rain.sda", RAIN),
        ("rain", RAIN),
        ("wind_1", WIND_2),
        ("9c0d", WIND),
        ("/models/wind_1.sda", WIND_2),
    ],
)
def test_ways_to_name_a_model(text: str, expected: ModelEntry) -> None:
    """Id, its beginning, name in any case, file with or without ending or folder."""
    assert find_entry(ALL, text, Path("/models")) is expected


@pytest.mark.parametrize("text", ["Wind-", "9c0", "9C0"])
def test_nothing_is_guessed(text: str) -> None:
    """Several that fit, or none, is an error; never the first of them."""
    with pytest.raises((UnknownModelError, AmbiguousModelError)):
        find_entry(ALL, text)


def test_a_whole_id_goes_before_a_name() -> None:
    """Even if another model is called like it."""
    assert find_entry([*ALL, TOO], "Rain") is TOO


def test_a_path_into_another_folder_is_no_model_of_this_library() -> None:
    """The same file name elsewhere is something else."""
    with pytest.raises(UnknownModelError):
        find_entry(ALL, "/elsewhere/rain.sda", Path("/models"))


def test_ambiguity_lists_ids_and_files() -> None:
    """Enough to choose by."""
    twins = [entry("a1", "Twin", "t.sda"), entry("b2", "Twin", "u.sda")]
    with pytest.raises(AmbiguousModelError, match=r"(?s)fits 2 models.*a1.*t\.sda.*b2.*u\.sda"):
        find_entry(twins, "twin ")


@pytest.mark.parametrize("text", ["", "  ", "/"])
def test_nothing_names_nothing(text: str) -> None:
    """An empty text is the beginning of every id, and names none."""
    with pytest.raises(UnknownModelError):
        find_entry(ALL, text)


@given(st.lists(st.text("0123456789abcdef-", min_size=1, max_size=20), unique=True, max_size=30))
def test_short_ids_are_unique_beginnings(ids: list[str]) -> None:
    """Each short id names its model alone, unless one id is the beginning of another."""
    short = short_ids([entry(model_id, "x") for model_id in ids])
    for model_id in ids:
        assert model_id.startswith(short[model_id])
        others = [other for other in ids if other.startswith(short[model_id]) and other != model_id]
        assert all(other.startswith(model_id) for other in others)
