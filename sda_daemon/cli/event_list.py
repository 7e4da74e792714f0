"""`sda-daemon events`: the catalogue of what the daemon logs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from sda_daemon.cli.options import AsJson, examples
from sda_daemon.cli.output import make_console, print_json, print_wrapped
from sda_daemon.errors import UnknownEventError

if TYPE_CHECKING:
    from sda_daemon.events import Event

EXAMPLES = examples(
    "sda-daemon events                 all of them",
    "sda-daemon events conversion      those that begin so",
    "sda-daemon events --json | jq -r '.[] | select(.level == \"error\") | .name'",
)


def _complete_event(incomplete: str) -> list[tuple[str, str]]:
    from sda_daemon.events import catalogue

    return [(event.name, event.when) for event in catalogue() if event.name.startswith(incomplete)]


def list_events(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Only this event, or those that begin so.", autocompletion=_complete_event),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List every event that the daemon logs.

    Its name and level, when it is logged, and the fields that it may carry.
    """
    from sda_daemon.events import catalogue

    found = [event for event in catalogue() if event.name.startswith(name)]
    if not found:
        raise UnknownEventError(f"there is no event {name!r}", "See: sda-daemon events")
    if as_json:
        print_json([document(event) for event in found])
        return
    from rich.text import Text

    console = make_console()
    for event in found:
        console.print(Text.assemble((event.name, "bold"), "  ", (level_name(event), _STYLES.get(event.level, ""))))
        print_wrapped(console, event.when)
        if event.fields:
            print_wrapped(console, ", ".join(event.fields), "dim")


_STYLES = {logging.ERROR: "red", logging.WARNING: "yellow", logging.DEBUG: "dim"}


def level_name(event: Event) -> str:
    """Return an event's level as the log shows it."""
    return logging.getLevelName(event.level).lower()


def document(event: Event) -> dict[str, object]:
    """Return what `--json` prints of an event."""
    return {"name": event.name, "level": level_name(event), "when": event.when, "fields": list(event.fields)}
