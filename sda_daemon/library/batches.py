"""Doing the same to several models, to each alone: one that it cannot be done to keeps no other from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Generic, TypeVar

from sda_daemon.errors import SdaError, SomeFailedError
from sda_daemon.library.entry import ModelEntry

T = TypeVar("T")


class Batch(Generic[T]):
    """Gathers what came of each model.

    Args:
        what: what is done to them, in a word that fits "could not be …".

    Attributes:
        done: results, in order.
        failures: name and error of those that it could not be done to.
    """

    def __init__(self, what: str) -> None:
        self.done: list[T] = []
        self.failures: list[tuple[str, Exception]] = []
        self._what = what

    @contextlib.contextmanager
    def each(self, name: str) -> Iterator[None]:
        """Deal with one model; its error is noted, and the next one is not affected.

        Around what deals with several by itself, it notes what was done and what failed.
        """
        try:
            yield
        except SomeFailedError as error:
            self.done += error.done
            self.failures += error.failures
        except (SdaError, OSError, ValueError) as error:
            self.failures.append((name, error))

    def result(self) -> list[T]:
        """Return what was done, if it was done to all.

        Raises:
            SomeFailedError: it was not; it tells which, and what was done. Of one model alone, the error itself.
        """
        if len(self.failures) == 1 and not self.done:
            raise self.failures[0][1]
        if self.failures:
            raise SomeFailedError(self._what, self.done, self.failures)
        return self.done


def title(entry: ModelEntry) -> str:
    """Return what a model is called in messages."""
    return entry.name or entry.file_path or entry.model_id
