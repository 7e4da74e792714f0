"""Finds and reads the config file, and knows the folders that follow from it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from sda_daemon.errors import ConfigError, ConfigExistsError, Problem, UnreadableConfigError
from sda_daemon.files import TRASH_FOLDER, is_file
from sda_daemon.os_errors import is_refusal
from sda_daemon.settings.annotated import SCHEMA_FILE_NAME, annotated_config, config_json_schema
from sda_daemon.settings.application import Application
from sda_daemon.settings.document import Origin
from sda_daemon.settings.exclusion import is_at_or_below
from sda_daemon.settings.schema import Settings
from sda_daemon.settings.source import parse_settings
from sda_daemon.settings.structure import Where
from sda_daemon.small_files import read_small_file

APP_NAME = "sda-daemon"
CONFIG_VARIABLE = "SDA_DAEMON_CONFIG"
CONFIG_FILE_NAME = "config.yaml"
MAX_CONFIG_BYTES = 2**20
SYSTEM_CONFIG = Path("/etc/sda-daemon/config.yaml")
SYSTEM_STATE = Path("/var/lib/sda-daemon")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """Settings, where they came from, and a digest of the file's content.

    `origins` tells where each value was given; what has no origin is a default.
    """

    settings: Settings
    path: Path
    digest: str
    origins: Mapping[Where, Origin] = field(default_factory=dict)


def user_config(environment: Mapping[str, str] | None = None) -> Path:
    """Return the place of the user's config file, whether it is there or not."""
    env = os.environ if environment is None else environment
    if env.get("XDG_CONFIG_HOME"):
        return Path(env["XDG_CONFIG_HOME"]) / APP_NAME / CONFIG_FILE_NAME
    return platformdirs.user_config_path(APP_NAME) / CONFIG_FILE_NAME


def find_config(given: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """Return the config file to use: the given one, `$SDA_DAEMON_CONFIG`, the user's, the system's.

    Raises:
        ConfigError: none was given and there is none at the usual places.
        UnreadableConfigError: whether there is one at a usual place may not be looked at.
    """
    env = os.environ if environment is None else environment
    if given is not None:
        return Path(given)
    if env.get(CONFIG_VARIABLE):
        return Path(env[CONFIG_VARIABLE])
    usual = [user_config(env), SYSTEM_CONFIG]
    for path in usual:
        try:
            if is_file(path):
                return path
        except OSError as error:
            raise _unreadable(path, error) from error
    places = " or ".join(str(path) for path in usual)
    raise ConfigError(
        f"there is no config file at {places}",
        f"Write one with sda-daemon config init, name one with --config FILE, or set {CONFIG_VARIABLE}",
    )


def read_config(path: Path) -> bytes:
    """Return the content of a config file.

    Raises:
        ConfigError: it is missing or cannot be read.
        UnreadableConfigError: it may not be read.
    """
    try:
        return read_small_file(path, MAX_CONFIG_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such config file", "Check the path, or write one with: sda-daemon config init"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    kind = UnreadableConfigError if is_refusal(error) else ConfigError
    return kind(
        f"{path}: the config file cannot be read: {error.strerror}", "Check the path, its owner and permissions"
    )


def parse_config(raw: bytes, path: Path, environment: Mapping[str, str] | None = None) -> LoadedConfig:
    """Check the content of a config file; templates are tried on made-up checkpoints.

    Raises:
        ConfigError: not valid; it holds all problems at once.
    """
    env = os.environ if environment is None else environment
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"this is not UTF-8 text: {error.reason}; save it as UTF-8"
        raise ConfigError(problems=[Problem(str(path), line, 1, "", message)]) from error
    parsed = parse_settings(text, str(path), path.absolute().parent, env, os.path.realpath, is_at_or_below)
    settings = parsed.settings
    if settings.state_dir is None and not env.get("STATE_DIRECTORY"):
        settings = settings.model_copy(update={"state_dir": service_state_folder(path)})
    return LoadedConfig(settings, path, digest_of(raw), parsed.origins)


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> LoadedConfig:
    """Read and check a config file.

    Raises:
        ConfigError: missing, unreadable, not valid; it holds all problems at once.
        UnreadableConfigError: it may not be read.
    """
    return parse_config(read_config(path), path, environment)


def digest_of(raw: bytes) -> str:
    """Return the digest by which one content of a config file is told from another."""
    return hashlib.sha256(raw).hexdigest()


def config_beside(application: Application) -> str:
    """Return the annotated config for the library of an application."""
    return annotated_config(
        str(application.models),
        str(application.datasets),
        more_watches=[str(application.models)],
        models_format=application.generation,
        application={"presets": application.presets, "history": application.history},
    )


def write_new_config(path: Path, text: str | None = None) -> list[Path]:
    """Write a config file, and beside it the JSON Schema for editors; return what was written.

    Args:
        path: where to.
        text: the config; without it, the annotated one with every default.

    Raises:
        ConfigExistsError: there is a file already; it is left as it is.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(annotated_config() if text is None else text)
    except FileExistsError as error:
        raise ConfigExistsError(
            f"{path} is there already and is left as it is",
            "Choose another place with --path, or move the old one away",
        ) from error
    written = [path]
    schema = path.with_name(SCHEMA_FILE_NAME)
    with contextlib.suppress(FileExistsError), schema.open("x", encoding="utf-8") as file:
        file.write(config_json_schema())
        written.append(schema)
    return written


def own_folders(settings: Settings, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the folders that the daemon itself fills: nothing in them is ever taken for a checkpoint.

    But for a watched folder inside of one: programs leave their trainings inside the library, too.
    """
    moved_to = [watch.move_to for watch in settings.watch if watch.move_to is not None]
    folders = [settings.models_dir, settings.models_dir / TRASH_FOLDER, state_folder(settings, environment), *moved_to]
    return tuple(dict.fromkeys(map(str, folders)))


def service_state_folder(path: Path) -> Path | None:
    """Return where the system service with this config keeps its state; None if it is no service's config.

    So that `sda-daemon status` finds in a terminal what systemd has told the service alone (`StateDirectory=`).
    """
    place = path.absolute()
    if place.parent != SYSTEM_CONFIG.parent:
        return None
    return SYSTEM_STATE if place.name == SYSTEM_CONFIG.name else SYSTEM_STATE / place.stem


def state_folder(settings: Settings, environment: Mapping[str, str] | None = None) -> Path:
    """Return the state folder: the configured one, systemd's, or the user's with one folder per library."""
    env = os.environ if environment is None else environment
    if settings.state_dir is not None:
        return settings.state_dir
    if env.get("STATE_DIRECTORY"):
        return Path(env["STATE_DIRECTORY"].split(":")[0])
    name = hashlib.sha256(os.fsencode(settings.models_dir)).hexdigest()[:8]
    return platformdirs.user_state_path(APP_NAME) / f"{settings.models_dir.name}-{name}"
