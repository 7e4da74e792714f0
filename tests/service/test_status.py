"""The status line in plain words."""

from __future__ import annotations

import pytest

from sda_daemon.service.status import Progress, age, describe


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(watching=1), "watching 1 folder; nothing to do"),
        (
            Progress(watching=3, converting=2, waiting=14, last="field-recordings epoch 190", last_age_s=12.7),
            "watching 3 folders; 2 converting, 14 waiting; last: field-recordings epoch 190, 12 s ago",
        ),
        (
            Progress(watching=1, missing=("/a", "/b"), failed=1),
            "watching 1 folder; /a and 1 more not there yet; nothing to do; 1 failed attempt since the start",
        ),
        (Progress(missing=("/a",), waiting=1), "watching 0 folders; /a not there yet; 0 converting, 1 waiting"),
        (
            Progress(watching=1, waiting=2, library_problem="it is gone"),
            "conversions wait for the models folder: it is gone; watching 1 folder; 0 converting, 2 waiting",
        ),
    ],
)
def test_the_line_says_what_there_is_to_say(progress: Progress, line: str) -> None:
    """Folders, work, the newest model, and trouble where there is any."""
    assert describe(progress) == line


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (86_399, "23 h"),
        (86_400, "1 day"),
        (2e5, "2 days"),
    ],
)
def test_ages_are_coarse(duration_s: float, text: str) -> None:
    """One whole unit, so that an idle daemon's line changes ever more seldom."""
    assert age(duration_s) == text
