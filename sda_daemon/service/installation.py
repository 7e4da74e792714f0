"""Installs the service: writes its files, makes its user and folders, enables and starts it; and takes it away again.

Every step reports one line of what it did. What was there before and is not ours is never touched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from sda_daemon.errors import CannotWriteError, ConfigError, SdaError
from sda_daemon.files import write_atomic
from sda_daemon.service.unit import (
    MARK,
    NAME,
    SERVICE_USER,
    SYSTEM_CONFIG_DIR,
    Folders,
    Place,
    Scope,
    folders_of,
    is_hidden,
    outermost,
    quote,
    render_drop_in,
    render_unit,
)
from sda_daemon.settings.loading import SYSTEM_STATE, load_config, state_folder
from sda_daemon.settings.schema import Settings

SYSTEM_UNITS_DIR = Path("/etc/systemd/system")
SYSUSERS_PATH = Path("/etc/sysusers.d/sda-daemon.conf")
TMPFILES_PATH = Path("/etc/tmpfiles.d/sda-daemon.conf")
STARTER_CONFIG = """\
# The config of the sda-daemon service. `sda-daemon config check FILE` checks it, `{reload}` applies it;
# when folders have changed, run `sda-daemon systemd-unit {scope} --install` again.
models_dir: {base}/models
watch:
  - path: {base}/checkpoints
"""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rendered:
    """The files of a service.

    Attributes:
        unit: text of the unit file.
        drop_in: text of its drop-in.
        folders: what that opens the sandbox for.
        settings: of the config.
    """

    unit: str
    drop_in: str
    folders: Folders
    settings: Settings


def place_for(scope: Scope, instance: str = "") -> Place:
    """Return where the service's files go.

    Raises:
        SdaError: an instance of a user service, or a name that no instance can have.
    """
    if scope is Scope.USER and instance:
        raise SdaError("instances are for the system service", "Leave out --instance, or use --system")
    if not all(character.isalnum() or character in "-_." for character in instance):
        raise SdaError(f"{instance!r} is no name for an instance", "Use letters, digits, - and _")
    units_dir = SYSTEM_UNITS_DIR if scope is Scope.SYSTEM else platformdirs.user_config_path("systemd") / "user"
    return Place(scope, units_dir, instance)


def default_config(place: Place) -> Path:
    """Return the config file that the service of a place reads if no other is named."""
    if place.scope is Scope.USER:
        return platformdirs.user_config_path(NAME) / "config.yaml"
    return SYSTEM_CONFIG_DIR / f"{place.instance or 'config'}.yaml"


def shipped_file(name: str) -> str:
    """Return a file of `systemd/`: from the installed package, or from the repository that it runs from."""
    packaged = Path(__file__).parent / "systemd"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "systemd"
    return (folder / name).read_text(encoding="utf-8")


def this_command() -> str:
    """Return what runs this installation's command line, for a unit file."""
    script = Path(sysconfig.get_path("scripts")) / NAME
    return quote(str(script)) if os.access(script, os.X_OK) else f"{quote(sys.executable)} -m sda_daemon"


def this_program() -> tuple[Path, ...]:
    """Return the folders that this installation runs from: environment, interpreter, package."""
    interpreter = Path(sys.executable).resolve().parents[1]
    package = Path(__file__).resolve().parents[2]
    return outermost((Path(sys.prefix), Path(sys.base_prefix), interpreter, package))


def render(place: Place, config: Path, run_as: str = "") -> Rendered:
    """Return the files of the service for a config.

    Raises:
        ConfigError: the config is missing or not valid.
    """
    settings = load_config(config).settings
    state_dir = settings.state_dir
    if place.scope is Scope.USER:
        without_systemd = {key: value for key, value in os.environ.items() if key != "STATE_DIRECTORY"}
        state_dir = state_folder(settings, without_systemd)
    elif state_dir is not None and state_dir.is_relative_to(SYSTEM_STATE):
        state_dir = None  # StateDirectory= of the unit opens it
    folders = folders_of(settings, state_dir, (*this_program(), _visible_config(config)))
    drop_in = render_drop_in(folders, place.scope, config, run_as)
    return Rendered(render_unit_for(place, config), drop_in, folders, settings)


def _visible_config(config: Path) -> Path:
    """What must be seen of a config: its folder, so that a replaced file is noticed; but never somebody's home."""
    folder = config.parent
    return config if folder == Path("/root") or folder.parent in (Path("/home"), Path("/")) else folder


def render_unit_for(place: Place, config: Path | None) -> str:
    """Return the unit of a place; with the shipped unit's own config where that is the one."""
    named = None if config is None or place.instance or config == default_config(place) else config
    return render_unit(shipped_file(place.shipped), place.scope, this_command(), named)


# --- installing -----------------------------------------------------------------------------------


def install(place: Place, config: Path | None, run_as: str, say: Say) -> None:
    """Write the files of the service, enable it, and start it (again).

    Args:
        place: which service.
        config: its config file; None for the usual one, which is written if it is not there.
        run_as: user of a system service, empty for its own one.
        say: told of each step.

    Raises:
        SdaError: no rights, no systemd, a file that is not ours, or the service does not start.
        ConfigError: the config is missing or not valid; nothing was changed.
    """
    _check_may_install(place, run_as)
    usual = default_config(place)
    if place.instance and config not in (None, usual):
        raise ConfigError(f"the instance {place.instance} reads {usual}, not {config}", "Put the config there")
    is_new = config is None and not usual.exists() and not place.instance
    if is_new:
        _write_starter(place, usual, say)
    rendered = render(place, (config or usual).absolute(), run_as)
    if place.scope is Scope.SYSTEM:
        _prepare_system(say, with_user=is_new or not run_as, with_folders=is_new)
    _make_folders(place, rendered, run_as, say)
    _write(place.unit_path, rendered.unit, say)
    _write(place.drop_in_path, rendered.drop_in, say)
    _run(*place.systemctl, "daemon-reload")
    _run(*place.systemctl, "enable", "--quiet", place.service)
    say(f"enabled {place.service}: it starts {'at boot' if place.scope is Scope.SYSTEM else 'when you log in'}")
    for problem in _access_problems(place, rendered, run_as):
        say(f"careful: {problem}")
    try:
        _run(*place.systemctl, "restart", place.service)
    except SdaError as error:
        log = "journalctl --user" if place.scope is Scope.USER else "journalctl"
        command = [*log.split(), "-o", "cat", "-p", "err", "-n", "1", "-t", NAME, "-u", place.service]
        words = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        said = f": {words}" if words else ""
        raise SdaError(
            f"{place.service} is installed, but does not start{said}", f"Its log: {log} -u {place.service}"
        ) from error
    say(f"started {place.service}")


def uninstall(place: Place, say: Say) -> None:
    """Stop and disable the service and remove the files that `install` wrote; everything else stays.

    Raises:
        SdaError: no rights, no systemd, or a file that is not ours.
    """
    _check_may_install(place, "")
    ours = [place.drop_in_path]
    others = [path for path in place.units_dir.glob(f"{NAME}@*.service.d") if path != place.drop_in_path.parent]
    if not place.instance or not any((path / place.drop_in_path.name).exists() for path in others):
        ours.append(place.unit_path)
        other = Place(place.scope, place.units_dir, "" if place.instance else "other").unit_path
        ours += [SYSUSERS_PATH, TMPFILES_PATH] if place.scope is Scope.SYSTEM and not other.exists() else []
    found = [path for path in ours if path.exists()]
    if place.unit_path not in found and place.drop_in_path not in found:
        say(f"{place.service} is not installed: there is no {place.unit_path}")
        return
    for path in found:
        _check_ours(path)
    _run(*place.systemctl, "disable", "--quiet", "--now", place.service)
    say(f"stopped and disabled {place.service}")
    for path in found:
        path.unlink()
        say(f"removed {path}")
    if place.drop_in_path.parent.is_dir() and not any(place.drop_in_path.parent.iterdir()):
        place.drop_in_path.parent.rmdir()
    _run(*place.systemctl, "daemon-reload")


def _check_may_install(place: Place, run_as: str) -> None:
    if shutil.which("systemctl") is None:
        raise SdaError("there is no systemctl here", "Without --install the unit is printed, to be taken elsewhere")
    if place.scope is Scope.SYSTEM and os.geteuid() != 0:
        raise CannotWriteError("the system service can only be installed by root", "Use sudo, or --user")
    if place.scope is Scope.USER and os.geteuid() == 0 and "SUDO_USER" in os.environ:
        raise SdaError("this would install a service for root", "Run it without sudo")
    if run_as:
        try:
            pwd.getpwnam(run_as)
        except KeyError as error:
            raise SdaError(f"there is no user {run_as}", "Make it first, or leave out --run-as") from error


def _write_starter(place: Place, path: Path, say: Say) -> None:
    is_system = place.scope is Scope.SYSTEM
    base = Path("/srv/sda-daemon") if is_system else Path.home() / "sda-daemon"
    reload = f"{' '.join(place.systemctl)} reload {NAME}"
    text = STARTER_CONFIG.format(base=base, scope=f"--{place.scope}", reload=reload)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [text.encode()])
    path.chmod(0o644)
    say(f"wrote {path}, a config to begin with: checkpoints in {base}/checkpoints, models in {base}/models")
    if not is_system:
        (base / "checkpoints").mkdir(parents=True, exist_ok=True)


def _prepare_system(say: Say, *, with_user: bool, with_folders: bool) -> None:
    """Make the service's user, and the folders of the starter config."""
    if with_user:
        _write(SYSUSERS_PATH, f"{MARK}.\n{shipped_file('sysusers.d/sda-daemon.conf')}", say)
        _run("systemd-sysusers", str(SYSUSERS_PATH))
    if with_folders:
        _write(TMPFILES_PATH, f"{MARK}.\n{shipped_file('tmpfiles.d/sda-daemon.conf')}", say)
        _run("systemd-tmpfiles", "--create", str(TMPFILES_PATH))


def _make_folders(place: Place, rendered: Rendered, run_as: str, say: Say) -> None:
    """Make what the service writes into: a sandbox cannot be opened for a folder that is not there."""
    for folder in rendered.folders.writable:
        if folder.is_dir():
            continue
        folder.mkdir(parents=True)
        if place.scope is Scope.SYSTEM:
            owner = pwd.getpwnam(run_as or SERVICE_USER)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        say(f"made {folder}")


def _write(path: Path, text: str, say: Say) -> None:
    if path.exists():
        _check_ours(path)
        if path.read_text(encoding="utf-8") == text:
            say(f"{path} is up to date")
            return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [text.encode()])
    except OSError as error:
        raise CannotWriteError(
            f"{path} cannot be written: {error.strerror}", "Check its folder's permissions"
        ) from error
    path.chmod(0o644)
    say(f"wrote {path}")


def _check_ours(path: Path) -> None:
    if not path.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise SdaError(
            f"{path} was not written by this command",
            "Move it away first; changes belong into drop-ins: systemctl edit",
        )


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise SdaError(f"`{' '.join(command)}` failed: {said}")


def _access_problems(place: Place, rendered: Rendered, run_as: str) -> list[str]:
    """Return which folders the service's user has no rights to, with what to do about it."""
    if place.scope is Scope.USER:
        return []
    user = run_as or SERVICE_USER
    problems = []
    for folders, mode, rights in ((rendered.folders.writable, "-w", "rwX"), (rendered.folders.readable, "-r", "rX")):
        for folder in folders:
            if folder.is_dir() and not _may(user, mode, folder):
                verb = "write to" if mode == "-w" else "read"
                cure = f"setfacl -R -m u:{user}:{rights} -m d:u:{user}:{rights} {folder}"
                problems.append(f"the user {user} may not {verb} {folder}; let it in with: {cure}")
    return problems


def _may(user: str, mode: str, folder: Path) -> bool:
    owner = pwd.getpwnam(user)
    groups = os.getgrouplist(user, owner.pw_gid)
    # A folder that is mounted into the service is judged from inside: what lies above it is no hindrance then.
    path = "." if is_hidden(folder) else str(folder)
    command = ["test", mode, path, "-a", "-x", path]
    tried = subprocess.run(command, cwd=folder, user=owner.pw_uid, group=owner.pw_gid, extra_groups=groups, check=False)
    return tried.returncode == 0
