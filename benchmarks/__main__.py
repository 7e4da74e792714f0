"""`make bench`: runs every benchmark that there is; the exit code is 0 if all limits hold."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

MODULES = ("library", "conversion", "idle")


def main() -> int:
    """Run them one after the other."""
    missed = []
    for name in MODULES:
        if find_spec(f"benchmarks.{name}") is None:
            continue
        print(f"\n{name}\n", flush=True)
        if import_module(f"benchmarks.{name}").main():
            missed.append(name)
    if missed:
        print(f"\nLimits missed in: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
