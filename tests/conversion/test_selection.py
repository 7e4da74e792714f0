"""Which model of a folder stays: pure."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.conversion.selection import Select, superseded
from sda_daemon.library.entry import ModelEntry
from sda_daemon.models.metadata import ModelMetadata


def model(model_id: str, epoch: int, loss: float) -> ModelEntry:
    metadata = ModelMetadata(model_id=model_id, training_epochs=epoch, final_val_loss=loss)
    return ModelEntry.from_metadata(metadata, f"{model_id}.sda", 1)


@pytest.mark.parametrize(
    ("select", "winner"),
    [("best", "b"), ("latest", "d")],
)
def test_one_stays(select: Select, winner: str) -> None:
    """The lowest loss (of equal ones the higher epoch), or the highest epoch; no loss at all is the worst."""
    models = [model("a", 1, 0.2), model("b", 2, 0.2), model("c", 3, math.nan), model("d", 4, math.inf)]
    assert {item.model_id for item in models} - {item.model_id for item in superseded(select, models)} == {winner}
    assert superseded("all", models) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.floats()), max_size=6), st.sampled_from(["best", "latest"]))
def test_exactly_one_stays_whatever_the_order(facts: list[tuple[int, float]], select: Select) -> None:
    """The order in which checkpoints come does not matter."""
    models = [model(str(number), epoch, loss) for number, (epoch, loss) in enumerate(facts)]
    lost = {item.model_id for item in superseded(select, models)}
    assert len(lost) == max(0, len(models) - 1)
    assert lost == {item.model_id for item in superseded(select, models[::-1])}


NUMBER: st.SearchStrategy[Any] = st.none() | st.integers() | st.floats() | st.sampled_from([10**400, -(10**400)])


@given(st.lists(st.tuples(NUMBER, NUMBER, st.none() | st.text()), max_size=6), st.sampled_from(["best", "latest"]))
def test_one_stays_whatever_an_index_says(facts: list[tuple[Any, Any, Any]], select: Select) -> None:
    """Other programs may have left out a number, or written one beyond all floats."""
    models = [
        dataclasses.replace(model(str(number), 0, 0.0), training_epochs=epoch, final_val_loss=loss, training_date=date)
        for number, (epoch, loss, date) in enumerate(facts)
    ]
    assert len(superseded(select, models)) == max(0, len(models) - 1)


def test_a_number_that_is_missing_is_the_worst() -> None:
    """No loss is worse than any loss, no epoch is before any epoch."""
    unknown = dataclasses.replace(model("x", 0, 0.0), training_epochs=None, final_val_loss=10**400)  # type: ignore[arg-type]
    known = model("a", 0, 99.0)
    assert superseded("best", [unknown, known]) == [unknown]
    assert superseded("latest", [unknown, known]) == [unknown]
