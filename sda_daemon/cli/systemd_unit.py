"""`sda-daemon systemd-unit`: the service's unit, printed, installed or taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sda_daemon.cli.options import ANY_PATH
from sda_daemon.errors import ConfigError


def systemd_unit(
    system: Annotated[
        bool, typer.Option("--system", help="A service of the machine, with a user of its own. Needs root to install.")
    ] = False,
    user: Annotated[bool, typer.Option("--user", help="A service of your own.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="The service's config; without it /etc/sda-daemon/config.yaml, or ~/.config/sda-daemon/config.yaml.",
            show_default=False,
            **ANY_PATH,
        ),
    ] = None,
    instance: Annotated[
        str,
        typer.Option(
            "--instance",
            metavar="NAME",
            help="One of several system services, with the config /etc/sda-daemon/NAME.yaml.",
            show_default=False,
        ),
    ] = "",
    run_as: Annotated[
        str,
        typer.Option(
            "--run-as", metavar="USER", help="The user of a system service; by default sda-daemon.", show_default=False
        ),
    ] = "",
    install: Annotated[
        bool, typer.Option("--install", help="Write the files, enable the service, start it (again).")
    ] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Stop and disable it, remove what --install wrote.")
    ] = False,
) -> None:
    """Print, install or remove the unit of a systemd service, locked down to exactly the folders of the config.

    Run it again with --install when the folders of the config have changed.
    """
    from sda_daemon.service import installation
    from sda_daemon.service.unit import Scope

    if system == user:
        raise typer.BadParameter("name one of --system and --user")
    if install and uninstall:
        raise typer.BadParameter("--install and --uninstall exclude each other")
    if run_as and user:
        raise typer.BadParameter("--run-as is for --system; a user service runs as its user")
    place = installation.place_for(Scope.SYSTEM if system else Scope.USER, instance)
    if uninstall:
        installation.uninstall(place, typer.echo)
        typer.echo("The config, the models, what the daemon remembers and its user are left as they are.")
        return
    if install:
        installation.install(place, config, run_as, typer.echo)
        _print_next_steps(place.service, is_user=user)
        return
    path = (config or installation.default_config(place)).absolute()
    try:
        rendered = installation.render(place, path, run_as)
    except ConfigError as error:
        if config is not None:
            raise
        typer.echo(f"# {place.unit_path}\n{installation.render_unit_for(place, None)}", nl=False)
        typer.echo(f"sda-daemon: no drop-in for the folders, because {error}", err=True)
        return
    typer.echo(f"# {place.unit_path}\n{rendered.unit}\n# {place.drop_in_path}\n{rendered.drop_in}", nl=False)


def _print_next_steps(service: str, *, is_user: bool) -> None:
    short = service.removesuffix(".service")
    scope = " --user" if is_user else ""
    steps = [
        (f"systemctl{scope} status {short}", "what it is doing"),
        (f"systemctl{scope} reload {short}", "after editing the config"),
        (f"journalctl{scope} -u {short} -f", "its log as it is written"),
        (f"journalctl{scope} -u {short} -p warning", "what went wrong"),
        (f"journalctl{scope} -u {short} SDA_EVENT=conversion.succeeded -o json", "every conversion, with fields"),
    ]
    if is_user:
        steps.append(("loginctl enable-linger", "start it at boot, and keep it after you log out"))
    width = max(len(command) for command, _ in steps)
    typer.echo("\nNext:")
    for command, what in steps:
        typer.echo(f"  {command:<{width}}  {what}")
