"""Names tell the models of a library apart. Pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.naming import name_apart
from sda_daemon.models.metadata import ModelMetadata

NEW = ModelMetadata("0a1b2c3d-4e5f", "bells epoch 3", training_date="2026-02-03T14:05:09+00:00", training_epochs=3)


def other(name: str = NEW.name, date: str = NEW.training_date, epoch: int = 3, model_id: str = "x") -> ModelEntry:
    """Return a model of the library."""
    metadata = ModelMetadata(model_id, name, training_date=date, training_epochs=epoch)
    return ModelEntry.from_metadata(metadata, "x.sda", 1)


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ([], "bells epoch 3"),
        ([other("bells epoch 30"), other("bells")], "bells epoch 3"),
        ([other(model_id=NEW.model_id)], "bells epoch 3"),
        ([other(epoch=4)], "bells epoch 3 (epoch 3)"),
        ([other(date="2026-02-02T14:05:09+00:00")], "bells epoch 3 (2026-02-03)"),
        ([other(date="")], "bells epoch 3 (2026-02-03)"),
        ([other(date="in spring")], "bells epoch 3 (2026-02-03)"),
        ([other(date="2026-02-03T13:05:09+00:00")], "bells epoch 3 (2026-02-03 14:05)"),
        ([other(date="2026-02-03T14:05:08+00:00")], "bells epoch 3 (2026-02-03 14:05:09)"),
        ([other()], "bells epoch 3 (0a1b2c3d)"),
        ([other("Bells  EPOCH 3")], "bells epoch 3 (0a1b2c3d)"),
        ([other(), other("bells epoch 3 (0a1b2c3d)", model_id="y")], "bells epoch 3 (0a1b2c3d-4e5f)"),
        (
            [other(date="2026-01-01"), other("bells epoch 3 (2026-02-03)", "2026-02-03T10:00:00", model_id="y")],
            "bells epoch 3 (2026-02-03 14:05)",
        ),
    ],
)
def test_a_taken_name_gets_what_differs(others: list[ModelEntry], name: str) -> None:
    """The epoch, the day, the minute, the second, or the id: the first that differs and is free."""
    assert name_apart(NEW, others) == name


@given(st.lists(st.tuples(st.sampled_from(["a", "A", "b"]), st.sampled_from(["", "2026-01-01", "2026-01-02T10:00"]))))
def test_no_two_are_called_the_same(wanted: list[tuple[str, str]]) -> None:
    """Whatever comes in whatever order."""
    entries: list[ModelEntry] = []
    for number, (name, date) in enumerate(wanted):
        metadata = ModelMetadata(f"{number:08}-{number}", name, training_date=date)
        metadata.name = name_apart(metadata, entries)
        entries.append(ModelEntry.from_metadata(metadata, "x.sda", 1))
    assert len({entry.name.casefold() for entry in entries}) == len(entries)
