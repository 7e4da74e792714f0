"""Unit files for this machine: the shipped ones with the right paths, and a drop-in for the folders of a config. Pure.

The shipped units (`systemd/`) are complete and work as they are where everything is at its usual place; what is
written here differs from them in the paths only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sda_daemon.errors import ConfigError
from sda_daemon.settings.schema import Settings

NAME = "sda-daemon"
DROP_IN_NAME = "10-folders.conf"
SERVICE_USER = "sda-daemon"
MARK = "# Written by `sda-daemon systemd-unit`"
"""The first words of every file that is installed; files without them are not ours to replace or remove."""
SYSTEM_CONFIG_DIR = Path("/etc/sda-daemon")
_SHIPPED_COMMANDS = {"system": "/opt/sda-daemon/bin/sda-daemon", "user": "%h/.local/bin/sda-daemon"}
_SHIPPED_CONFIGS = {"system": "/etc/sda-daemon/config.yaml", "user": "%E/sda-daemon/config.yaml"}
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - named because the sandbox hides them


class Scope(StrEnum):
    """Whose manager runs the service."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Place:
    """Which service a unit is for.

    Attributes:
        scope: the system's or a user's.
        units_dir: where the unit goes.
        instance: of the template unit; empty for the plain one.
    """

    scope: Scope
    units_dir: Path
    instance: str = ""

    @property
    def shipped(self) -> str:
        """Path of the shipped unit below `systemd/`."""
        return f"{self.scope}/{self.file_name}"

    @property
    def file_name(self) -> str:
        """Name of the unit file."""
        return f"{NAME}@.service" if self.instance else f"{NAME}.service"

    @property
    def service(self) -> str:
        """Name of the service, as systemctl takes it."""
        return f"{NAME}@{self.instance}.service" if self.instance else f"{NAME}.service"

    @property
    def unit_path(self) -> Path:
        """Where the unit file goes."""
        return self.units_dir / self.file_name

    @property
    def drop_in_path(self) -> Path:
        """Where the drop-in goes."""
        return self.units_dir / f"{self.service}.d" / DROP_IN_NAME

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The beginning of every systemctl command for it."""
        return ("systemctl", "--user") if self.scope is Scope.USER else ("systemctl",)


@dataclass(frozen=True, slots=True)
class Folders:
    """What the service must see and change.

    Attributes:
        writable: folders that it writes into.
        readable: folders that it only reads from.
        program: folders and files that it needs to start: interpreter, package, config.
    """

    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    program: tuple[Path, ...] = field(default=())


def folders_of(settings: Settings, state_dir: Path | None, program: Iterable[Path] = ()) -> Folders:
    """Return the folders of a config.

    A watched folder is only read from, unless its checkpoints are deleted or moved when they are done.

    Args:
        settings: the config.
        state_dir: the state folder, None if the unit brings its own.
        program: what the service needs to start.
    """
    writable = [settings.models_dir, *([state_dir] if state_dir else [])]
    readable: list[Path] = []
    for watch in settings.watch:
        (readable if watch.after == "keep" else writable).append(watch.path)
        writable += [watch.move_to] if watch.move_to else []
    outer = outermost(writable)
    return Folders(outer, outermost(path for path in readable if not _is_within(path, outer)), outermost(program))


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Leave out paths that lie within others: a second entry would be a second mount, and no rename between them."""
    kept: list[Path] = []
    for path in sorted(dict.fromkeys(paths), key=lambda path: len(path.parts)):
        if not _is_within(path, kept):
            kept.append(path)
    return tuple(kept)


def render_unit(shipped: str, scope: Scope, command: str, config: Path | None) -> str:
    """Return a shipped unit with other paths.

    Args:
        shipped: text of the shipped unit.
        scope: whose it is.
        command: what runs this installation's `sda-daemon`, quoted already.
        config: the config file; None to keep the shipped unit's.
    """
    text = shipped.replace(_SHIPPED_COMMANDS[scope.value], command)
    if config is not None:
        text = text.replace(_SHIPPED_CONFIGS[scope.value], quote(str(config), in_command=True))
    return f"{MARK}; changes are lost when it runs again, so put them into drop-ins: systemctl edit.\n{text}"


def render_drop_in(folders: Folders, scope: Scope, config: Path, run_as: str = "") -> str:
    """Return the drop-in that opens the sandbox for exactly these folders.

    Args:
        folders: what to open it for.
        scope: whose service it is.
        config: the config file, for the comment.
        run_as: the user of a system service, if not the usual one.
    """
    hiding = _TEMPORARY if scope is Scope.USER else (*_HOMES, *_TEMPORARY)
    lines = [
        f"{MARK} for {config}.",
        "# Run it again when the folders of the config have changed.",
        "[Service]",
    ]
    if run_as:
        lines += [f"User={run_as}", "Group="]
    everything = (*folders.program, *folders.readable, *folders.writable)
    if scope is Scope.SYSTEM and any(_is_within(path, _HOMES) for path in everything):
        lines += ["# Homes are hidden but for what is named here.", "ProtectHome=tmpfs"]
    if any(_is_within(path, hiding) for path in everything):
        lines += [
            "# A mount follows the folder, not its name: after one of these was replaced, restart the service.",
            *(f"BindReadOnlyPaths={quote(str(path))}" for path in folders.program if _is_within(path, hiding)),
            *(f"BindReadOnlyPaths=-{quote(str(path))}" for path in folders.readable if _is_within(path, hiding)),
            *(f"BindPaths={quote(str(path))}" for path in folders.writable if _is_within(path, hiding)),
        ]
    lines += [f"ReadWritePaths={quote(str(path))}" for path in folders.writable if not _is_within(path, hiding)]
    return "\n".join(lines) + "\n"


def quote(text: str, *, in_command: bool = False) -> str:
    """Quote a word for a unit file: specifiers, spaces, and in a command line variables.

    Raises:
        ConfigError: it holds a line break, which has no place in a unit file.
    """
    if "\n" in text or "\r" in text:
        raise ConfigError(f"the path {text!r} has a line break in it", "A unit file cannot name it: rename the folder")
    plain = text.replace("%", "%%")
    if in_command:
        plain = plain.replace("$", "$$")
    if any(character in plain for character in " \t'\"\\;:"):
        escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return plain


def is_hidden(path: Path) -> bool:
    """Tell whether the system unit hides a folder unless it is mounted in: homes and temporary folders."""
    return _is_within(path, (*_HOMES, *_TEMPORARY))


def _is_within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
