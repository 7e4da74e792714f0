"""The `sda-daemon` command. Commands parse, call and print; what they do lives below."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; errors are printed without a traceback."""
    from sda_daemon.cli.app import run_app

    sys.exit(run_app(sys.argv[1:]))
