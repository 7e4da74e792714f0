"""What the daemon works by: one version of the config, with what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from sda_daemon.settings.loading import own_folders
from sda_daemon.settings.rules import template_digest, watch_settings_for
from sda_daemon.settings.schema import Settings, WatchSettings


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A version of the config. Another one takes its place as a whole; work under way keeps the one it began with.

    Attributes:
        settings: what the file says.
        template_digest: of the templates and rules; what they refused is looked at again under another digest.
        own_folders: folders that the daemon fills itself, in which nothing is a checkpoint.
    """

    settings: Settings
    template_digest: str
    own_folders: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str] | None = None) -> Self:
        """Work out what follows from settings; the environment is by default this process's."""
        digest = template_digest(settings.metadata, settings.rules)
        return cls(settings, digest, own_folders(settings, environment))

    def watch_at(self, root: str) -> WatchSettings | None:
        """Return the settings of a watched folder; None if it is not watched any more."""
        return next((watch for watch in self.settings.watch if str(watch.path) == root), None)

    def watch_for(self, root: str, path: str) -> WatchSettings | None:
        """Return the settings of a watched folder with what rules change for one checkpoint in it."""
        watch = self.watch_at(root)
        return watch and watch_settings_for(watch, self.settings.rules, relative_to(root, path))


def relative_to(root: str, path: str) -> str:
    """Return a path below a watched folder, as rules see it."""
    return path[len(root) :].lstrip("/")
