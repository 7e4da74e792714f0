"""The names of model files."""

from __future__ import annotations

from itertools import islice

from hypothesis import given

from sda_daemon.library.entry import is_bare_model_name
from sda_daemon.models.metadata import file_name_candidates
from tests.odd_texts import ODD_TEXTS

ID = "1a2ff958-0b1c-5000-8000-000000000001"


def test_names_in_order() -> None:
    """The plain one, numbers, then more and more of the id, then numbers for ever."""
    names = list(islice(file_name_candidates("Rain on Tin!", model_id=ID), 110))
    assert names[:3] == ["rain_on_tin.sda", "rain_on_tin_1.sda", "rain_on_tin_2.sda"]
    assert names[99:102] == ["rain_on_tin_99.sda", "rain_on_tin_1a2ff958.sda", "rain_on_tin_1a2ff958-0b1c.sda"]
    assert names[106:109] == [f"rain_on_tin_{ID}.sda", "rain_on_tin_100.sda", "rain_on_tin_101.sda"]
    assert list(islice(file_name_candidates(None), 2)) == ["untitled.sda", "untitled_1.sda"]


def test_there_is_no_end_of_names() -> None:
    """Also where ten thousand have the same, and the same id."""
    names = list(islice(file_name_candidates("x", model_id=ID), 50_000))
    assert len(set(names)) == 50_000


def test_a_hundred_tries_are_enough() -> None:
    """However many thousands of models have the name: the id is not theirs."""
    taken = set(islice(file_name_candidates("x"), 10_000))
    tries = next(number for number, name in enumerate(file_name_candidates("x", model_id=ID)) if name not in taken)
    assert tries == 100


@given(ODD_TEXTS, ODD_TEXTS)
def test_every_name_is_one_for_a_file(name: str, model_id: str) -> None:
    """Whatever a model and its id are called: portable, not hidden, not too long, each only once."""
    names = list(islice(file_name_candidates(name, model_id=model_id), 150))
    assert len(set(names)) >= 140
    for candidate in names:
        assert is_bare_model_name(candidate)
        assert candidate.isascii()
        assert len(candidate) <= 104
