"""`status` and `retry` against a real daemon: what runs, waits, failed, and another try."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.daemon_process import DaemonProcess

Drop = Callable[..., Path]


def test_status_before_during_and_after(daemon: DaemonProcess, drop: Drop) -> None:
    """No daemon yet, a running one with a failure, a stopped one: facts, words and exit codes."""
    daemon.write_config()
    nothing = daemon.cli("status")
    assert nothing.returncode == 1
    assert "no daemon has run with this config yet" in nothing.stderr
    daemon.start()
    drop(daemon.drop / "a" / "x.pt", 1)
    (daemon.drop / "junk.pt").write_bytes(b"no checkpoint")
    daemon.wait_for_models(1)
    daemon.wait_for("conversion.failed")
    facts = daemon.status(lambda facts: facts["today"]["converted"] == 1 and facts["failed"])
    assert facts["running"] is True
    assert facts["daemon"]["pid"] == daemon.pid
    assert facts["watches"] == [{"path": str(daemon.drop), "observer": "native", "problem": ""}]
    (failure,) = facts["failed"]
    assert (failure["path"], failure["kind"], failure["attempts"]) == (str(daemon.drop / "junk.pt"), "broken", 1)
    assert failure["next_try_in_s"] is None
    words = daemon.cli("status")
    assert words.returncode == 0
    assert re.search(rf"running since .* \(pid {daemon.pid}, ", words.stdout)
    for line in (f"watching {daemon.drop} (native)", f"refused {daemon.drop}/junk.pt", "1 converted"):
        assert line in words.stdout
    daemon.stop()
    facts = daemon.status(lambda facts: not facts["running"])
    assert facts["daemon"] is None
    assert len(facts["failed"]) == 1
    assert daemon.cli("status").returncode == 1


def test_retry_converts_what_was_refused(daemon: DaemonProcess) -> None:
    """By path and with --all, with the daemon running or not; a path that has not failed is an error."""
    daemon.start()
    junk = daemon.drop / "junk.pt"
    junk.write_bytes(b"no checkpoint")
    daemon.wait_for("conversion.failed")
    assert daemon.cli("retry", str(daemon.drop / "other.pt")).returncode == 1
    assert daemon.cli("retry").returncode == 2
    mark = daemon.mark()
    done = daemon.cli("retry", str(junk))
    assert done.returncode == 0, done.stderr
    assert "trying 1 again now" in done.stdout
    daemon.wait_for("conversion.failed", after=mark, path=str(junk))
    daemon.stop()
    assert "will be tried again when the daemon starts" in daemon.cli("retry", "--all").stdout
    mark = daemon.mark()
    daemon.start()
    daemon.wait_for("conversion.failed", after=mark, path=str(junk))
