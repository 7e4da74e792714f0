"""What is different between two configs, in words. Pure."""

from __future__ import annotations

from typing import Any

from sda_daemon.settings.document import scalars_of
from sda_daemon.settings.messages import shown
from sda_daemon.settings.schema import Settings
from sda_daemon.settings.structure import dotted


def changes(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return one line for each setting that differs, such as `workers: 2 → 4`."""
    before, after = _flat(old), _flat(new)
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            lines.append(f"{name}: {shown(after[name])} added")
        elif name not in after:
            lines.append(f"{name}: {shown(before[name])} removed")
        elif before[name] != after[name]:
            lines.append(f"{name}: {shown(before[name])} → {shown(after[name])}")
    return tuple(_without_the_obvious(lines, old, new))


def _flat(settings: Settings) -> dict[str, Any]:
    """Return every single value by its dotted name; watched folders go by their path, not their number."""
    data = settings.model_dump(mode="json", exclude={"watch"})
    flat = {dotted(where): value for where, value in scalars_of(data).items()}
    for watch in settings.watch:
        for where, value in scalars_of(watch.model_dump(mode="json")).items():
            flat[f"watch[{watch.path}].{dotted(where)}"] = value
    return flat


def _without_the_obvious(lines: list[str], old: Settings, new: Settings) -> list[str]:
    """Write one line for a watched folder that has come or gone, not one for each of its settings."""
    gone = {str(watch.path) for watch in old.watch} - {str(watch.path) for watch in new.watch}
    come = {str(watch.path) for watch in new.watch} - {str(watch.path) for watch in old.watch}
    prefixes = tuple(f"watch[{path}]." for path in gone | come)
    kept = [line for line in lines if not line.startswith(prefixes)] if prefixes else lines
    whole = [f"watch[{path}]: removed" for path in sorted(gone)] + [f"watch[{path}]: added" for path in sorted(come)]
    return kept + whole
