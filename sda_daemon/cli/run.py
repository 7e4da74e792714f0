"""`sda-daemon run`: the daemon itself."""

from __future__ import annotations

from typing import Annotated

import typer

from sda_daemon.cli.options import ConfigFile, examples

EXAMPLES = examples(
    "sda-daemon run                             the config of this user, or of the system",
    "sda-daemon run --config sda-daemon.yaml    this one",
    "sda-daemon run --once                      convert what is there, then exit",
)


def run(
    config: ConfigFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Convert what is there, then exit: 0, or 1 if any conversion failed.")
    ] = False,
) -> int:
    """Watch folders and turn each new checkpoint into a model.

    Until it is stopped, by Ctrl-C or SIGTERM; running conversions may then finish.
    """
    import faulthandler
    import os

    from sda_daemon.cli.streams import hurry_stderr
    from sda_daemon.daemon.daemon import Daemon
    from sda_daemon.logs import LAST_WORDS_S, configure_logging, flush_log
    from sda_daemon.service.notify import Notifier
    from sda_daemon.settings.loading import find_config, load_config

    faulthandler.enable(file=2)  # systemd's watchdog sends SIGABRT: the log then shows where the daemon hung
    hurry_stderr(LAST_WORDS_S)
    notifier = Notifier.from_environment(os.environ)
    loaded = load_config(find_config(config))
    configure_logging(loaded.settings.logging.level, loaded.settings.logging.format)
    try:
        return Daemon(loaded, once=once, notifier=notifier).run()
    finally:
        flush_log()  # before a traceback or last words
