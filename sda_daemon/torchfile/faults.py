"""Why a file cannot be used, in words that fit behind its path; whoever reads it makes an error of its own of them.

`what` is a phrase such as "is a Git LFS pointer, not the file itself", `hint` says what to do next.
"""

from __future__ import annotations

from sda_daemon.wording import clean

_LONGEST_WHAT = 500
COPY_AGAIN = "Copy it again from where it was written"
SAVE_LESS = "Save it again with less beside its weights, such as without its metrics history and optimizer"


class Fault(Exception):
    """Root of all reasons not to use a file.

    Args:
        what: what is wrong, as the predicate of a sentence about the file.
        hint: what to do next; may be empty.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        what = clean(what, _LONGEST_WHAT)  # names out of the file may stand in it
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return self.what


class Damaged(Fault):
    """Truncated, or not what was written; the same content is never readable."""

    def __init__(self, what: str, hint: str = COPY_AGAIN, begin: str = "is truncated or damaged: ") -> None:
        super().__init__(f"{begin}{what}", hint)


class Oversized(Fault):
    """It would cost more time or memory than a file of its size may; no proof of bad intent.

    `what` names what there is too much of, and the limit.
    """

    def __init__(self, what: str, hint: str = SAVE_LESS, begin: str = "is too costly to read: ") -> None:
        super().__init__(f"{begin}{what}", hint)


class TooLarge(Oversized):
    """More than the caller wanted to look at."""


class OtherKind(Fault):
    """Sound, but something else than what was expected."""


class NotTorch(Fault):
    """Nothing that torch writes, nor anything else that is known."""


class Unsafe(Fault):
    """It names something that can act; `name` is what that is called today."""

    def __init__(self, name: str) -> None:
        super().__init__(f"wants to call {name}; nothing of it was run", "Do not trust where this file came from")
        self.name = name
