"""What follows from a conversion that did not work, decided without doing anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sda_daemon.conversion.failures import Consequence, Verdict, consequence_of
from sda_daemon.conversion.job import ConversionJob, Failed
from sda_daemon.conversion.work import Work
from sda_daemon.errors import FinishedModelError
from sda_daemon.settings.rules import template_digest
from sda_daemon.settings.schema import MetadataSettings
from sda_daemon.signature import FileSignature
from sda_daemon.state.policy import FIRST_PAUSE_S, Status

SIGNATURE = FileSignature(1, 2, 3)
JOB = ConversionJob("/drop/a.pt", SIGNATURE, "/drop", "/models", "/models/.work", "1.tmp", MetadataSettings())
WORK = Work("/drop/a.pt", "/drop", SIGNATURE, attempt=2)
DIGEST = template_digest(JOB.metadata, JOB.rules)


def of(failed: Failed, digest: str = DIGEST, attempt: int = 2) -> Consequence:
    work = replace(WORK, attempt=attempt)
    return consequence_of(failed, work, model_id="before", digest_in_force=digest, max_attempts=3, spread=0.5)


@pytest.mark.parametrize(
    ("failed", "verdict", "status", "pause_s"),
    [
        (Failed(JOB, "skipped", True, "a rule"), Verdict.SKIPPED, Status.SKIPPED, None),
        (Failed(JOB, FinishedModelError.kind, True, "a model"), Verdict.SKIPPED, Status.SKIPPED, None),
        (Failed(JOB, "changed", False, "it changed"), Verdict.CHANGED, Status.FAILED, None),
        (Failed(JOB, "damaged", True, "a bit"), Verdict.FAILED, Status.REFUSED, None),
        (Failed(JOB, "template", True, "{{ x }}"), Verdict.FAILED, Status.REFUSED, None),
        (Failed(JOB, "no_space", False, "full"), Verdict.FAILED, Status.FAILED, 2 * FIRST_PAUSE_S),
        (Failed(JOB, "crashed", False, "a signal", is_crash=True), Verdict.FAILED, Status.FAILED, 2 * FIRST_PAUSE_S),
    ],
)
def test_each_kind(failed: Failed, verdict: Verdict, status: Status, pause_s: float | None) -> None:
    """What is remembered keeps the model that the path made before."""
    found = of(failed)
    assert found.row is not None
    assert (found.verdict, found.row.status, found.pause_s) == (verdict, status, pause_s)
    assert (found.row.kind, found.row.reason, found.row.attempts) == (failed.kind, failed.message, 2)
    assert (found.row.model_id, found.row.template_digest) == ("before", DIGEST)
    assert found.look_again == (verdict is Verdict.CHANGED)


def test_one_that_is_no_more_is_forgotten() -> None:
    """There is nothing to remember of it."""
    assert of(Failed(JOB, "vanished", False, "gone")) == Consequence(Verdict.VANISHED, None)


@pytest.mark.parametrize("attempt", [3, 4])
def test_too_many_crashes(attempt: int) -> None:
    """And only crashes: a full disk is waited for as long as it takes."""
    crash = of(Failed(JOB, "crashed", False, "a signal", is_crash=True), attempt=attempt)
    assert crash.row is not None
    assert (crash.verdict, crash.row.status, crash.pause_s) == (Verdict.GIVEN_UP, Status.GIVEN_UP, None)
    full = of(Failed(JOB, "no_space", False, "full"), attempt=attempt)
    assert full.verdict is Verdict.FAILED
    assert full.pause_s is not None


@pytest.mark.parametrize("kind", ["skipped", "template"])
def test_a_config_that_has_changed_meanwhile(kind: str) -> None:
    """What the old templates and rules refused is looked at again at once; what the file is to blame for is not."""
    assert of(Failed(JOB, kind, True, "old"), digest="another").look_again
    assert not of(Failed(JOB, "damaged", True, "a bit"), digest="another").look_again
