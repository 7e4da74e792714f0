"""An engine for tests of what stands around it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from sda_daemon.conversion import worker
from sda_daemon.conversion.job import ConversionJob, Outcome


class StepwisePool:
    """An engine that converts, really and at once, when it is told to: the test chooses the order of what happens."""

    def __init__(self) -> None:
        self.warmed = 0
        self.waiting: list[tuple[ConversionJob, Callable[[], None] | None, Future[Outcome]]] = []

    def submit(self, job: ConversionJob, on_free: Callable[[], None] | None = None) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        self.waiting.append((job, on_free, future))
        return future

    def convert_next(self) -> None:
        """Convert the oldest job; its worker is free, and its file is on the disk."""
        job, on_free, future = self.waiting.pop(0)
        if on_free is not None:
            on_free()
        future.set_result(worker.make_durable(worker.convert(job)))

    def end_next(self, outcome: Callable[[ConversionJob], Outcome]) -> None:
        """Let the oldest job end as it is said here."""
        job, on_free, future = self.waiting.pop(0)
        if on_free is not None:
            on_free()
        future.set_result(outcome(job))

    def free_next(self) -> Callable[[], None]:
        """The oldest job's worker is free, but its file is on its way to the disk until what is returned is called."""
        job, on_free, future = self.waiting.pop(0)
        outcome = worker.convert(job)
        assert on_free is not None
        on_free()
        return lambda: future.set_result(worker.make_durable(outcome))

    def warm(self) -> None:
        """Count it."""
        self.warmed += 1

    def release(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
