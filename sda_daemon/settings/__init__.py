"""The config file as typed values: the schema, its defaults, and reading YAML text into it. Pure."""

from sda_daemon.settings.schema import (
    MetadataOverrides,
    MetadataSettings,
    RuleSettings,
    Settings,
    WatchSettings,
)

__all__ = [
    "MetadataOverrides",
    "MetadataSettings",
    "RuleSettings",
    "Settings",
    "WatchSettings",
]
