"""Every event has something to say to a person."""

from __future__ import annotations

import string

import pytest

from sda_daemon import events
from sda_daemon.sentences import _SENTENCES, sentence


@pytest.mark.parametrize("event", list(events.catalogue()), ids=lambda event: event.name)
def test_an_event_with_all_its_values_makes_a_sentence(event: events.Event) -> None:
    """No braces are left, and what its sentence names is what the event carries."""
    values = {key: f"<{key}>" for key in event.fields if key != "retry_in_s"}
    text = sentence(event.name, values)
    assert "{" not in text
    template = _SENTENCES.get(event.name)
    if template is not None:
        named = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        assert named <= set(event.fields)
        assert all(f"<{name}>" in text for name in named)


def test_every_sentence_is_about_an_event() -> None:
    """None is left over from an event that is no more."""
    assert set(_SENTENCES) <= {event.name for event in events.catalogue()}


def test_an_event_without_all_its_values_is_told_all_the_same() -> None:
    """By the catalogue's description and what is there."""
    assert sentence("watch.lost", {"path": "/drop"}) == (
        "A watched folder was removed, renamed or replaced, or its watcher died (path=/drop)"
    )
    assert sentence("no.such_event", {}) == "no.such_event"


def test_a_failure_says_when_it_is_tried_again() -> None:
    """Only where it is."""
    values = {"path": "/x.pt", "reason": "disk full", "retry_in_s": 5.0}
    assert sentence("conversion.failed", values) == "Could not convert /x.pt: disk full; next try in 5 s"
