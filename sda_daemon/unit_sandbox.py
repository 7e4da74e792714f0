"""Tells refusals of a service's sandbox from other trouble, and names the unit's line that is missing.

For `os_errors`, which asks this only in a service.

The kernel says "read-only file system" whether a disk is mounted read-only or a unit's ProtectSystem=
forbids writing. The mount table knows the difference: the sandbox makes the *mount* read-only, and leaves the
file system below it writable.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")
_HIDING_MOUNT = "/systemd/inaccessible/"
_HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo.

    Attributes:
        root: which folder of the file system is mounted.
        point: where.
        options: of this mount.
        kind: of the file system.
        file_system_options: of the file system itself.
    """

    root: str
    point: str
    options: frozenset[str]
    kind: str
    file_system_options: frozenset[str]

    @property
    def is_sandboxed(self) -> bool:
        """Whether this mount is read-only though its file system is not."""
        return "ro" in self.options and "rw" in self.file_system_options


@dataclass(frozen=True, slots=True)
class Service:
    """Which service this process belongs to.

    Attributes:
        unit: its name.
        user: whom it runs as.
        is_users: whether it is one of a user's own manager.
    """

    unit: str
    user: str
    is_users: bool

    @classmethod
    def of(cls, cgroup: str, user: str) -> Service:
        """Read it from the text of a /proc/…/cgroup file."""
        path = next((line for line in cgroup.splitlines() if line.endswith(".service")), "")
        return cls(path.rpartition("/")[2] or "the unit", user, "/user@" in path)

    @property
    def remedy(self) -> str:
        """How to add a line to the unit."""
        scope = "--user" if self.is_users else "--system"
        instance = self.unit.partition("@")[2].removesuffix(".service")
        scope += f" --instance {instance}" if instance else ""
        edit = "systemctl --user edit" if self.is_users else "systemctl edit"
        return (
            f"`sda-daemon systemd-unit {scope} --install` writes it for the folders of the config, "
            f"or add it with `{edit} {self.unit}` and restart"
        )


def parse_mounts(lines: Iterable[str]) -> list[Mount]:
    """Read the lines of a mountinfo file; see proc(5)."""
    mounts = []
    for line in lines:
        front, _, back = line.partition(" - ")
        fields, rest = front.split(), back.split()
        if len(fields) >= 6 and len(rest) >= 3:
            root, point = (_OCTAL.sub(lambda found: chr(int(found[1], 8)), text) for text in fields[3:5])
            options = (frozenset(text.split(",")) for text in (fields[5], rest[2]))
            mounts.append(Mount(root, point, next(options), rest[0], next(options)))
    return mounts


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that a path lies on: the deepest, and of several at one place the latest."""
    found: Mount | None = None
    for mount in mounts:
        is_above = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if is_above and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def explain(error: OSError, folder: Path | None = None) -> str:
    """Return what `os_errors.sandbox_hint` does, in a process of a service."""
    named = [os.path.realpath(os.fsdecode(name)) for name in (error.filename, error.filename2) if _is_path(name)]
    if folder is None and not named:
        return ""
    try:
        mounts = parse_mounts(Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines())
        service = Service.of(Path("/proc/self/cgroup").read_text(), _user_name())
    except OSError:
        return ""
    where = os.path.realpath(folder) if folder is not None else _folder_of(named[0])
    target = _folder_of(named[1]) if len(named) > 1 else None
    return explain_refusal(error.errno or 0, where, target, mounts, service)


def explain_refusal(number: int, folder: str, target: str | None, mounts: Iterable[Mount], service: Service) -> str:
    """Return the explanation for an error number; see `explain`. Pure.

    Args:
        number: of the error.
        folder: where something was refused.
        target: where something was to be renamed or linked to, if it was that.
        mounts: what the service sees.
        service: which it is.
    """
    mount = mount_of(folder, mounts)
    if number == errno.EROFS and mount is not None and mount.is_sandboxed:
        return (
            f"The service's sandbox forbids writing there. The folder must exist, and {service.unit} needs the line "
            f"ReadWritePaths={folder}: {service.remedy}"
        )
    if number == errno.EXDEV:
        common = os.path.commonpath([folder, target or folder])
        return (
            "Files cannot be renamed between two folders of ReadWritePaths=, because each is a mount of its own. "
            f"{service.unit} needs one line for both, ReadWritePaths={common}: {service.remedy}"
        )
    if number in (errno.EACCES, errno.ENOENT) and mount is not None and _hides(mount, folder):
        home = "ProtectHome=tmpfs and " if mount.point in _HOMES else ""
        return (
            f"The service's sandbox hides what lies below {mount.point}. {service.unit} needs {home}"
            f"BindPaths={folder}: {service.remedy}"
        )
    if number == errno.EACCES:
        return (
            f"The service runs as the user {service.user}, who is not let in: change owner or permissions, "
            f"for example with `setfacl -m u:{service.user}:rwX {folder}`"
        )
    return ""


def _hides(mount: Mount, path: str) -> bool:
    """Tell whether a mount is there to hide: an inaccessible folder, or an empty one over somebody's home."""
    is_empty_home = mount.kind == "tmpfs" and mount.point in _HOMES and path != mount.point
    return _HIDING_MOUNT in mount.root or is_empty_home


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _folder_of(path: str) -> str:
    return path if Path(path).is_dir() else str(Path(path).parent)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
