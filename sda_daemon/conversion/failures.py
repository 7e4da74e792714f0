"""What follows from a conversion that did not work. Pure: a decision first, what is done about it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from sda_daemon.conversion.job import Failed
from sda_daemon.conversion.work import Work
from sda_daemon.errors import FinishedModelError
from sda_daemon.settings.rules import template_digest
from sda_daemon.state.policy import GiveUp, LedgerRow, RetryIn, Status, after_failure


class Verdict(Enum):
    """What a failed conversion turns out to be."""

    VANISHED = auto()
    """The checkpoint is no more: it is forgotten."""
    CHANGED = auto()
    """It has another content than was to be converted: it is looked at again."""
    SKIPPED = auto()
    """It was never to be converted: a rule says so, or it is a finished model."""
    FAILED = auto()
    """It failed, and may be tried again."""
    GIVEN_UP = auto()
    """It failed too often."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from a failed conversion.

    Attributes:
        verdict: what it is.
        row: what is to be remembered of the checkpoint; None where it is to be forgotten.
        look_again: whether the checkpoint is to be looked at again at once.
        pause_s: after how many seconds it is tried again; None for never.
    """

    verdict: Verdict
    row: LedgerRow | None
    look_again: bool = False
    pause_s: float | None = None


def consequence_of(
    failed: Failed, work: Work, *, model_id: str, digest_in_force: str, max_attempts: int, spread: float
) -> Consequence:
    """Decide what follows from a failed conversion.

    Args:
        failed: how it failed.
        work: what was to be converted.
        model_id: of the model that this path made before; empty for none.
        digest_in_force: of the templates and rules that are in force now, which may not be those it began with.
        max_attempts: how many crashes are too many.
        spread: a random number from 0 to 1, for the jitter of the pause.
    """
    digest = template_digest(failed.job.metadata, failed.job.rules)
    row = LedgerRow(
        work.path,
        work.root,
        work.signature,
        Status.FAILED,
        work.attempt,
        failed.kind,
        failed.message,
        model_id=model_id,
        template_digest=digest,
    )
    if failed.kind == "vanished":
        return Consequence(Verdict.VANISHED, None)
    if failed.kind == "changed":
        return Consequence(Verdict.CHANGED, row, look_again=True)
    look_again = digest != digest_in_force and failed.kind in ("skipped", "template")
    if failed.kind in ("skipped", FinishedModelError.kind):
        return Consequence(Verdict.SKIPPED, replace(row, status=Status.SKIPPED), look_again)
    answer = after_failure(
        work.attempt,
        permanent=failed.permanent,
        is_crash=failed.is_crash,
        max_attempts=max_attempts,
        spread=spread,
    )
    match answer:
        case GiveUp(status):
            verdict = Verdict.GIVEN_UP if status is Status.GIVEN_UP else Verdict.FAILED
            return Consequence(verdict, replace(row, status=status), look_again)
        case RetryIn(pause_s):
            return Consequence(Verdict.FAILED, row, look_again, pause_s)
