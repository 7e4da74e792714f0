"""Decisions about checkpoints and failures: pure, with time and chance as arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.signature import FileSignature
from sda_daemon.state.policy import (
    JITTER,
    LONGEST_PAUSE_S,
    Convert,
    GiveUp,
    LedgerRow,
    RetryIn,
    Skip,
    Status,
    after_failure,
    decide,
)

NOW = FileSignature(10, 20, 30)
BEFORE = FileSignature(10, 19, 30)


def row(status: Status, signature: FileSignature = NOW, **facts: object) -> LedgerRow:
    return LedgerRow("x.pt", "/", signature, status, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (None, Convert(1)),
        (row(Status.DONE), Skip()),
        (row(Status.DUPLICATE), Skip()),
        (row(Status.DONE, BEFORE), Convert(1)),
        (row(Status.REFUSED, kind="broken", reason="damaged"), Skip()),
        (row(Status.REFUSED, BEFORE), Convert(1)),
        (row(Status.REFUSED, kind="template", template_digest="old", reason="x"), Convert(1)),
        (row(Status.REFUSED, kind="template", template_digest="new", reason="x"), Skip()),
        (row(Status.GIVEN_UP, attempts=5, reason="crash"), Skip()),
        (row(Status.GIVEN_UP, BEFORE, attempts=5), Convert(1)),
        (row(Status.FAILED, attempts=2), Convert(3)),
        (row(Status.CONVERTING, attempts=1), Convert(2)),
    ],
)
def test_what_is_converted(known: LedgerRow | None, expected: object) -> None:
    """New and changed content is; done content is not; a failed template is tried with other templates."""
    assert decide(NOW, known, "new") == expected


def fail(attempt: int, spread: float = 0.5, *, permanent: bool = False, is_crash: bool = False) -> RetryIn | GiveUp:
    return after_failure(attempt, permanent=permanent, is_crash=is_crash, max_attempts=3, spread=spread)


def test_content_is_refused_at_once_and_crashes_after_a_few() -> None:
    """A broken file is not tried again; a crash is, until the limit; a full disk always is."""
    assert fail(1, permanent=True) == GiveUp(Status.REFUSED)
    assert isinstance(fail(2, is_crash=True), RetryIn)
    assert fail(3, is_crash=True) == GiveUp(Status.GIVEN_UP)
    assert isinstance(fail(1000), RetryIn)


def test_pauses_grow_to_a_limit() -> None:
    """2, 4, 8 … seconds, never more than five minutes."""
    pauses = [verdict.pause_s for attempt in range(1, 12) if isinstance(verdict := fail(attempt), RetryIn)]
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_jitter_stays_within_its_share(attempt: int, spread: float) -> None:
    """Whatever the attempt and the chance, the pause is spread by at most its share."""
    middle, spread_out = fail(attempt), fail(attempt, spread)
    assert isinstance(middle, RetryIn)
    assert isinstance(spread_out, RetryIn)
    assert abs(spread_out.pause_s - middle.pause_s) <= middle.pause_s * JITTER + 1e-9
