"""Finds and reads the config file, and knows the folders that follow from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from sda_daemon.errors import ConfigError
from sda_daemon.settings.schema import Settings
from sda_daemon.settings.source import parse_settings
from sda_daemon.templates import EXAMPLE_FACTS, render_metadata

APP_NAME = "sda-daemon"
CONFIG_VARIABLE = "SDA_DAEMON_CONFIG"
SYSTEM_CONFIG = Path("/etc/sda-daemon/config.yaml")
SYSTEM_STATE = Path("/var/lib/sda-daemon")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """Settings, where they came from, and a digest of the text."""

    settings: Settings
    path: Path
    digest: str


def find_config(given: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """Return the config file to use: the given one, `$SDA_DAEMON_CONFIG`, the user's, the system's.

    Raises:
        ConfigError: none was given and there is none at the usual places.

    """
    env = os.environ if environment is None else environment
    if given is not None:
        return Path(given)
    if env.get(CONFIG_VARIABLE):
        return Path(env[CONFIG_VARIABLE])
    usual = [platformdirs.user_config_path(APP_NAME) / "config.yaml", SYSTEM_CONFIG]
    for path in usual:
        if path.is_file():
            return path
    places = " or ".join(str(path) for path in usual)
    raise ConfigError(f"there is no config file at {places}", f"Name one with --config FILE, or set {CONFIG_VARIABLE}")


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> LoadedConfig:
    """Read and check a config file; templates are tried on example facts.

    Raises:
        ConfigError: missing, unreadable, not valid; the message lists all problems.

    """
    env = os.environ if environment is None else environment
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no config file {path}", "Check the path, or copy config/sda-daemon.yaml"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "Check the path and its permissions") from error
    settings = parse_settings(text, str(path), path.resolve().parent, env)
    render_metadata(settings.metadata, EXAMPLE_FACTS)
    if settings.state_dir is None and not env.get("STATE_DIRECTORY"):
        settings = settings.model_copy(update={"state_dir": service_state_folder(path)})
    return LoadedConfig(settings, path, hashlib.sha256(raw).hexdigest())


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
