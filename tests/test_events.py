"""Every event has something to say to a person, and its sentence is about what it carries."""

from __future__ import annotations

import string

import pytest

from sda_daemon import events
from sda_daemon.events import sentence_of


def named_in(sentence: str) -> set[str]:
    """Return the fields that a sentence names."""
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("event", list(events.catalogue()), ids=lambda event: event.name)
def test_an_event_with_all_its_values_makes_a_sentence(event: events.Event) -> None:
    """No braces are left, and what its sentence names is what the event carries."""
    assert named_in(event.sentence) <= set(event.fields)
    values = {key: f"<{key}>" for key in event.fields if key != "retry_in_s"}
    text = sentence_of(event.name, values)
    assert "{" not in text
    assert all(f"<{name}>" in text for name in named_in(event.sentence))


def test_names_and_fields_are_said_once() -> None:
    """No event has the name of another, and none a field twice."""
    found = [value for value in vars(events).values() if isinstance(value, events.Event)]
    assert found == list(events.catalogue())
    assert all(len(set(event.fields)) == len(event.fields) for event in found)
    assert all(events.named(event.name) is event for event in found)


def test_an_event_without_all_its_values_is_told_all_the_same() -> None:
    """By the catalogue's description and what is there."""
    assert sentence_of("watch.lost", {"path": "/drop"}) == (
        "A watched folder was removed, renamed or replaced, or its watcher died (path=/drop)"
    )
    assert sentence_of("no.such_event", {}) == "no.such_event"


def test_a_failure_says_when_it_is_tried_again() -> None:
    """Only where it is."""
    values = {"path": "/x.pt", "reason": "disk full", "retry_in_s": 5.0}
    assert sentence_of("conversion.failed", values) == "Could not convert /x.pt: disk full; next try in 5 s"
