"""`python -m sda_daemon`: the same as the `sda-daemon` command."""

from sda_daemon.cli import main

if __name__ == "__main__":
    main()
