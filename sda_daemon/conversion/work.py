"""One checkpoint from settling to the ledger, and what its conversion begins with. Frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sda_daemon.conversion.job import ConversionJob, Outcome
from sda_daemon.conversion.pool import ConversionPool
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.in_use import InUse
from sda_daemon.settings.run_config import RunConfig
from sda_daemon.settings.schema import WatchSettings
from sda_daemon.signature import FileSignature


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a conversion begins with, and ends with whatever happens to the config meanwhile.

    Attributes:
        config: the config in force.
        library: where models go.
        pool: runs conversions.
        work_dir: folder for unfinished files, in the file system of the library.
        in_use: tells what people have made with a model.
    """

    config: RunConfig
    library: ModelLibrary
    pool: ConversionPool
    work_dir: Path
    in_use: InUse


@dataclass(frozen=True, slots=True)
class Work:
    """A checkpoint that waits for its conversion.

    Attributes:
        path: the checkpoint.
        root: the watched folder that it lies in.
        signature: of the content that is to be converted.
        attempt: which one this is, from 1.
        not_before: when it may begin, in monotonic seconds; it is looked at again then. 0 for at once.
    """

    path: str
    root: str
    signature: FileSignature
    attempt: int
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class RunningWork:
    """A checkpoint that is being converted.

    Attributes:
        work: the checkpoint.
        context: what its conversion began with.
        job: what its worker was given.
        is_free: whether its worker is done and can take another; the file may still be on its way to the disk.
        outcome: what became of it; None as long as that is not known.
    """

    work: Work
    context: RunContext
    job: ConversionJob
    is_free: bool = False
    outcome: Outcome | None = None

    @property
    def watch(self) -> WatchSettings | None:
        """The settings of its watched folder, with what rules change for it."""
        return self.context.config.watch_for(self.work.root, self.work.path)
