"""`sda-daemon run`: the daemon itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Config file (YAML).", show_default=False)
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Convert what is there, then exit: 0, or 1 if any conversion failed.")
    ] = False,
) -> int:
    """Watch the configured folders and turn each new checkpoint into a model, until stopped."""
    import faulthandler
    import os

    from sda_daemon.config import find_config, load_config
    from sda_daemon.daemon import Daemon
    from sda_daemon.logs import configure_logging
    from sda_daemon.service.notify import Notifier

    faulthandler.enable(file=2)  # systemd's watchdog sends SIGABRT: the log then shows where the daemon hung
    notifier = Notifier.from_environment(os.environ)
    loaded = load_config(find_config(config))
    configure_logging(loaded.settings.logging.level, loaded.settings.logging.format)
    return Daemon(loaded, once=once, notifier=notifier).run()
