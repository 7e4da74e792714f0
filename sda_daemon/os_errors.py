"""What an error of the operating system means: in words, with what to do about it, and as a kind for scripts.

In a service it is often the unit's sandbox that forbids something; which line of the unit is missing is then said, too.
Errors that this package raises itself are in `errors`, with `exit_code_of` for both sorts.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

INVOCATION_VARIABLE = "INVOCATION_ID"
"""Set by systemd for the processes of a service."""
_KINDS_AND_REMEDIES = {
    errno.EACCES: ("permission", "Check owner and permissions"),
    errno.EPERM: ("permission", "Check owner and permissions"),
    errno.EROFS: ("read_only", "The file system is mounted read-only"),
    errno.ENOSPC: ("disk_full", "Make room"),
    errno.EDQUOT: ("disk_full", "Make room"),
    errno.EBUSY: ("busy", ""),
    errno.EMFILE: ("too_many_files", ""),
}


def kind_of(error: OSError) -> str:
    """Return a short static name, as events and the ledger have it: "permission", "disk_full", …, else "io"."""
    return _meaning(error)[0]


def remedy(error: OSError) -> str:
    """Return what to do about an error with `ExitCode.CANNOT_WRITE`; empty for others."""
    return _meaning(error)[1]


def _meaning(error: OSError) -> tuple[str, str]:
    return _KINDS_AND_REMEDIES.get(error.errno or 0, ("io", ""))


def is_refusal(error: OSError) -> bool:
    """Tell whether the system forbids it: by owner and permissions, or by a mount that is read-only."""
    return kind_of(error) in ("permission", "read_only")


def takes_nothing(error: OSError) -> bool:
    """Tell whether nothing at all can be written there: the disk is full, or read-only."""
    return kind_of(error) in ("disk_full", "read_only")


def describe(error: OSError) -> str:
    """Return what the system says, and of which file, as a person reads it: `Permission denied (x.pt)`."""
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")


def explained(error: Exception, what: str = "") -> str:
    """Return what happened, with what to do about it; of another error than the system's its own message.

    Args:
        error: what was raised.
        what: what happened, in words that take the place of the system's.
    """
    if not isinstance(error, OSError):
        return str(error)
    hint = remedy(error)
    return f"{what or describe(error)}. {hint}" if hint else what or describe(error)


def sandbox_hint(error: OSError, folder: Path | None = None) -> str:
    """Return what in a service's sandbox is behind an error, with the line to add; empty if it is not that.

    Args:
        error: what the kernel said.
        folder: what it was about; otherwise the folder of the file that the error names.
    """
    if INVOCATION_VARIABLE not in os.environ:
        return ""
    from sda_daemon.unit_sandbox import explain

    return explain(error, folder)


def with_sandbox_hint(error: Exception) -> str:
    """Return an error's own message, with what the sandbox has to do with it if anything."""
    hint = sandbox_hint(error) if isinstance(error, OSError) else ""
    return f"{error}. {hint}" if hint else str(error)


def with_hint(error: Exception) -> str:
    """Return an error's message with what to do about it: with the sandbox's part in it, else `explained`."""
    hint = sandbox_hint(error) if isinstance(error, OSError) else ""
    return f"{error}. {hint}" if hint else explained(error)
