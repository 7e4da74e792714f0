"""Decides what to do with a settled checkpoint and with a failed conversion. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sda_daemon.signature import FileSignature

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 300.0
FREE_INTERRUPTIONS = 3
LONGEST_INTERRUPTION_PAUSE_S = 60.0
JITTER = 0.2
"""Pauses are spread by this share up and down, so that many failures do not come back at once."""


class Status(StrEnum):
    """What the ledger remembers of a checkpoint."""

    CONVERTING = "converting"
    DONE = "done"
    DUPLICATE = "duplicate"
    FAILED = "failed"
    """Failed for a reason that may pass; tried again."""
    REFUSED = "refused"
    """Failed for what is in the file; tried again when the file changes."""
    GIVEN_UP = "given_up"
    """Failed too often; tried again when the file changes or someone asks for it."""
    SKIPPED = "skipped"
    """A rule of the config says so; looked at again when templates or rules change."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What the ledger remembers of one path. `next_try_at` is UTC seconds, 0 for none."""

    path: str
    root: str
    signature: FileSignature
    status: Status
    attempts: int = 0
    kind: str = ""
    reason: str = ""
    model_id: str = ""
    weights_digest: str = ""
    template_digest: str = ""
    next_try_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Convert:
    """Convert it; this is attempt number `attempt`."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after a pause, in seconds."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave it alone until it changes."""

    status: Status


def decide(signature: FileSignature, row: LedgerRow | None, template_digest: str) -> Convert | Skip:
    """Tell whether a settled file is to be converted.

    Args:
        signature: what the file is now.
        row: what the ledger remembers of its path.
        template_digest: of the templates in force; a file that failed by a template is tried with new ones.
    """
    if row is None or row.signature != signature:
        return Convert(1)
    if row.status in (Status.DONE, Status.DUPLICATE):
        return Skip()
    if row.status is Status.SKIPPED:
        return Skip() if row.template_digest == template_digest else Convert(1)
    if row.status is Status.REFUSED:
        is_other_template = row.kind == "template" and row.template_digest != template_digest
        return Convert(1) if is_other_template else Skip()
    return Skip() if row.status is Status.GIVEN_UP else Convert(row.attempts + 1)


def pause_after_interruptions(row: LedgerRow | None) -> float:
    """Return how long to wait with a checkpoint whose conversions ended with the daemon itself, in seconds.

    Once or twice is chance. What takes the daemon down again and again (by all the memory, say) comes back more
    and more rarely, so that the others get their turn; it is never given up, because no one knows that it is to blame.
    """
    if row is None or row.kind != "interrupted" or row.attempts <= FREE_INTERRUPTIONS:
        return 0.0
    return float(
        min(FIRST_PAUSE_S * 2.0 ** min(row.attempts - FREE_INTERRUPTIONS - 1, 10), LONGEST_INTERRUPTION_PAUSE_S)
    )


def after_failure(
    attempt: int, *, permanent: bool, is_crash: bool, max_attempts: int, spread: float
) -> RetryIn | GiveUp:
    """Tell what to do after a failure.

    What is wrong with the file's content is not tried again. A worker that died or hung may do so again and
    again: that is given up after `max_attempts`. Whatever else (a full disk, no permission) is tried again
    for ever, with growing pauses.

    Args:
        attempt: number of the attempt that failed, from 1.
        permanent: whether the cause lies in the file's content.
        is_crash: whether the worker died or hung.
        max_attempts: limit for crashes.
        spread: a random number from 0 to 1, for the jitter.
    """
    if permanent:
        return GiveUp(Status.REFUSED)
    if is_crash and attempt >= max_attempts:
        return GiveUp(Status.GIVEN_UP)
    pause_s = min(FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 20), LONGEST_PAUSE_S)
    return RetryIn(pause_s * (1.0 + JITTER * (2.0 * spread - 1.0)))
