"""What reaches the loop besides the watchers' hints. Frozen."""

from __future__ import annotations

from dataclasses import dataclass

from sda_daemon.conversion.job import ConversionJob, Outcome, Sliders
from sda_daemon.library.weights import Weights
from sda_daemon.signature import FileSignature


@dataclass(frozen=True, slots=True)
class WorkerFree:
    """A worker is done with a job; its model is on the way to the disk, or the failure to the loop."""

    job: ConversionJob


@dataclass(frozen=True, slots=True)
class JobDone:
    """A conversion has ended, and its file is on the disk."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class SourceCleared:
    """A checkpoint that is done with was deleted, or moved to `moved_to`."""

    path: str
    root: str
    signature: FileSignature
    moved_to: str


@dataclass(frozen=True, slots=True)
class SourceStayed:
    """A checkpoint that is done with was not deleted or moved.

    Attributes:
        path, root, signature: the checkpoint.
        reason: why it could not be; empty if there was no more reason to, or another content under its name.
        back_as: where that other content is now; empty if there was none.
        is_waiting: whether it is tried again by itself soon.
    """

    path: str
    root: str
    signature: FileSignature
    reason: str
    back_as: str = ""
    is_waiting: bool = False


@dataclass(frozen=True, slots=True)
class SourcePutBack:
    """A file under a private name was looked at.

    Attributes:
        private: the private path.
        root: the watched folder.
        path: the name that it has again; empty if it was not abandoned, or could not be put back.
        reason: why it could not be.
    """

    private: str
    root: str
    path: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WeightsRead:
    """A worker has read the weights of model files, of some or all that it was asked for; or it failed."""

    token: object
    found: list[Weights] | None
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class SlidersCopied:
    """A worker has written a copy of a model with sliders, or says why it could not; or it failed."""

    token: object
    found: Sliders | str | None
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class WorkerSaid:
    """A worker process, or a library in it, has printed something."""

    text: str


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Failures have been taken out of the ledger, to be tried again now."""


@dataclass(frozen=True, slots=True)
class ConfigTouched:
    """Something happened to the config file, or on the way to it."""


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """Someone wants the config to be read again (SIGHUP)."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Someone wants the daemon to stop; asked a second time, at once."""

    reason: str
