"""Every error this package raises on purpose, in one tree, with the command line's exit codes.

A message says what happened, to which value, and what to do next. `str(error)` is that message,
ready to print; the parts are in `what` and `hint`. Exit codes follow sysexits.h where it has one
that fits, so that an operator can tell classes of failure apart in a script or a unit file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

from sda_daemon.os_errors import explained, remedy
from sda_daemon.wording import LONGEST_VALUE, listed, quoted, shortened


class ExitCode(IntEnum):
    """What the `sda-daemon` command exits with."""

    OK = 0
    FAILED = 1
    """Something was tried and did not work: a conversion failed, a model is unknown."""
    USAGE = 2
    """The command line itself was wrong."""
    BAD_DATA = 65
    """A checkpoint, a model file or an index is broken, unsafe or of another kind."""
    NOTHING_TO_WATCH = 66
    """No configured folder can be watched."""
    ALREADY_RUNNING = 69
    """Another daemon holds the models folder or the state folder."""
    CANNOT_WRITE = 73
    """A file or folder may not be read or cannot be written: no permission, read-only, disk full."""
    TRY_LATER = 75
    """Something is busy or not mounted; the same command may work later."""
    BAD_CONFIG = 78
    """The config file is missing or wrong. A service manager must not restart on this."""
    INTERRUPTED = 130
    """Ctrl-C."""


class SdaError(Exception):
    """Root of all errors that this package raises on purpose.

    Args:
        what: what happened, and to which value.
        hint: what to do next; may be empty where there is nothing sensible to say.
    """

    exit_code: ExitCode = ExitCode.FAILED
    kind: ClassVar[str] = "error"
    """Short static name, used as a key in events and in the ledger."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}. {self.hint}" if self.hint else self.what


def exit_code_of(error: Exception) -> ExitCode:
    """Return what a command exits with because of an error."""
    if isinstance(error, SdaError):
        return error.exit_code
    return ExitCode.CANNOT_WRITE if isinstance(error, OSError) and remedy(error) else ExitCode.FAILED


# --- configuration and daemon -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong in a config.

    Attributes:
        source: the file, or the environment variable that the value came from.
        line, column: counted from 1; 0 means the source as a whole.
        key: dotted path of the key; empty for the source as a whole.
        message: the value, what is wrong with it and what would be right.
    """

    source: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(SdaError):
    """The config file is missing, unreadable, not YAML, or does not fit the schema.

    Args:
        what: what is wrong, for errors that are not about places in the file.
        hint: what to do next.
        problems: everything that is wrong; takes the place of `what`.
    """

    exit_code = ExitCode.BAD_CONFIG
    kind = "config"

    def __init__(self, what: str = "", hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join(map(str, problems)) or what, hint)
        self.problems = tuple(problems)


class UnreadableConfigError(ConfigError):
    """The config file, or a folder on the way to it, may not be read."""

    exit_code = ExitCode.CANNOT_WRITE


class ConfigExistsError(SdaError):
    """There is a config file already; it is never written over."""

    exit_code = ExitCode.CANNOT_WRITE
    kind = "config_exists"


class NoApplicationError(SdaError):
    """The training application is not where it was said to be, or its own config cannot be read."""

    kind = "no_application"


class TemplateError(ConfigError):
    """A metadata template does not compile, names an unknown fact, or fails on these facts."""

    kind = "template"


class AlreadyRunningError(SdaError):
    """Another daemon holds the models folder or the state folder."""

    exit_code = ExitCode.ALREADY_RUNNING
    kind = "already_running"


class LedgerError(SdaError):
    """The daemon's memory cannot be opened or written: disk full, no permission."""

    exit_code = ExitCode.CANNOT_WRITE
    kind = "ledger"


class NothingToWatchError(SdaError):
    """Not one of the configured folders can be watched."""

    exit_code = ExitCode.NOTHING_TO_WATCH
    kind = "nothing_to_watch"


class CannotWriteError(SdaError):
    """A folder of the config cannot be made, locked or written to."""

    exit_code = ExitCode.CANNOT_WRITE
    kind = "cannot_write"


# --- checkpoints --------------------------------------------------------------------------------


class CheckpointError(SdaError, ValueError):
    """A file cannot be converted because of what it contains; permanent until the file changes."""

    exit_code = ExitCode.BAD_DATA
    kind = "checkpoint"


class BrokenCheckpointError(CheckpointError):
    """The file is truncated, damaged, or no file that torch has written."""

    kind = "broken"


class UnsafeCheckpointError(CheckpointError):
    """The pickle names a function that has no business in a checkpoint. Nothing of it was run."""

    kind = "unsafe"


class OversizedCheckpointError(CheckpointError):
    """The file promises more than it holds: compressed entries, far too many, tensors beyond its size."""

    kind = "oversized"


class ForeignCheckpointError(CheckpointError):
    """A sound torch file, but not a checkpoint of this kind of model."""

    kind = "not_a_checkpoint"


class FinishedModelError(ForeignCheckpointError):
    """A finished model, whatever its file is called: what is made of checkpoints is never one itself."""

    kind = "finished_model"


class NewerCheckpointError(CheckpointError):
    """Written by a later version of the training application than this program knows."""

    kind = "newer_version"


class MisfittingWeightsError(CheckpointError):
    """Weights are missing, left over, or of shapes that do not make a ConvVAE."""

    kind = "misfit"


class NonFiniteWeightsError(CheckpointError):
    """Weights contain NaN or infinity; such a model only makes silence or noise."""

    kind = "not_finite"


class ChangedWhileReadError(SdaError):
    """The file was replaced or rewritten while it was read; the new content is tried again."""

    kind = "changed"
    exit_code = ExitCode.TRY_LATER


# --- models and library -------------------------------------------------------------------------


class ModelFileError(SdaError, ValueError):
    """A model file cannot be used: no marker, newer version, broken, misfitting weights."""

    exit_code = ExitCode.BAD_DATA
    kind = "model_file"


class NotAModelError(ModelFileError):
    """The file is no saved model: it lacks the format marker or is no torch file."""

    kind = "not_a_model"


class NewerModelError(ModelFileError):
    """The model was saved by a later version than this program knows."""

    kind = "newer_model"


class BrokenModelError(ModelFileError):
    """The file is truncated, damaged, or its weights are missing or do not fit."""

    kind = "broken_model"


class UnsafeModelError(ModelFileError):
    """The file's pickle names something that can act. Nothing of it was run."""

    kind = "unsafe_model"


class UnplayableModelError(ModelFileError):
    """The application that opens this format would decode the model with the wrong activation."""

    kind = "unplayable_model"


class LibraryError(SdaError):
    """The model library cannot be read or changed."""

    kind = "library"


class NewerIndexError(LibraryError):
    """The index was written by a later version; it is left exactly as it is."""

    exit_code = ExitCode.BAD_DATA
    kind = "newer_index"


class LibraryBusyError(LibraryError):
    """Another process kept the library's lock for too long."""

    exit_code = ExitCode.TRY_LATER
    kind = "library_busy"


class LibraryReadOnlyError(LibraryError):
    """The library's folder cannot be made, or it can be read, but not written, or not its lock file."""

    exit_code = ExitCode.CANNOT_WRITE
    kind = "library_read_only"


class LibraryUnreadableError(LibraryError):
    """The library's folder or its index may not be read."""

    exit_code = ExitCode.CANNOT_WRITE
    kind = "library_unreadable"


class UnknownModelError(LibraryError):
    """No model has this id, name or file."""

    kind = "unknown_model"


class AmbiguousModelError(LibraryError):
    """Several models fit a name or the beginning of an id."""

    kind = "ambiguous_model"


class NoLibraryError(LibraryError):
    """The models folder does not exist."""

    kind = "no_library"


class LibraryLostError(LibraryError):
    """The models folder is bare although it was full when the daemon last ran: it is hardly mounted."""

    exit_code = ExitCode.TRY_LATER
    kind = "library_lost"


class ModelExistsError(LibraryError):
    """The library has this model already."""

    kind = "model_exists"


class ForeignEntryError(LibraryError):
    """Something of another program stands in the index where this program would write; it is left as it is."""

    kind = "foreign_entry"


class UneditableModelError(ModelFileError):
    """The file's metadata cannot be rewritten without touching something else."""

    kind = "uneditable_model"


class SomeFailedError(LibraryError):
    """Some of several models could not be dealt with; the others were.

    Args:
        what: what was to be done with them, such as "deleted".
        done: what came of those that it was done with.
        failures: name and error of each of the others.
    """

    kind = "some_failed"

    def __init__(self, what: str, done: Sequence[Any], failures: Sequence[tuple[str, Exception]]) -> None:
        told = [(name, explained(error)) for name, error in failures]
        lines = [f"  {quoted(name)}: {shortened(why, LONGEST_VALUE)}" for name, why in told]
        count = f"{len(failures)} of {len(done) + len(failures)} models"
        super().__init__("\n".join([f"{count} could not be {what}:", *listed(lines)]))
        self.done = tuple(done)
        self.failures = tuple(failures)
        codes = {exit_code_of(error) for _, error in failures}
        self.exit_code = codes.pop() if len(codes) == 1 else ExitCode.FAILED


class UnknownEventError(SdaError):
    """No event has this name."""

    kind = "unknown_event"
