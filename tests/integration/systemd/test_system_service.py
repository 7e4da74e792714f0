"""The system service in a real systemd: installed by one command, at work, reloaded, killed, hung, locked out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.systemd.lab import DROP, MODELS, SERVICE, UNITS, Lab, eventually

pytestmark = [pytest.mark.slow, pytest.mark.needs_root("boots a systemd of its own")]
CONFIG = Path("/etc/sda-daemon/config.yaml")
Checkpoints = Callable[..., Path]


def test_one_command_makes_a_service_that_converts(service: Lab, whole_checkpoint: Path) -> None:
    """Enabled and active; a dropped checkpoint becomes a model inside the sandbox; status and journal tell of it."""
    assert service.systemctl("is-enabled", SERVICE).stdout.strip() == "enabled"
    assert service.show("StatusText") == "watching 1 folder; nothing to do"
    source = whole_checkpoint
    service.put(DROP / "notes64" / "checkpoints" / source.name, source.read_bytes())
    (entry,) = service.wait_for("conversion.succeeded")
    assert entry["SDA_PATH"] == str(DROP / "notes64" / "checkpoints" / source.name)
    assert entry["SDA_FILE"] in entry["MESSAGE"]
    assert entry["SDA_NAME"].startswith("notes64 epoch ")
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("6", "sda-daemon")
    assert entry["_SYSTEMD_UNIT"] == SERVICE
    assert service.exists(MODELS / entry["SDA_FILE"])
    assert entry["SDA_MODEL_ID"] in service.read(MODELS / "model_library.json")
    assert service.entries(f"SDA_MODEL_ID={entry['SDA_MODEL_ID']}", "-u", SERVICE)
    eventually(lambda: f"last: {entry['SDA_NAME']}, " in service.show("StatusText"), "the status names the model")
    assert not service.entries("-p", "warning", "-u", SERVICE)
    # A terminal finds the service's state without being told where it is.
    assert "running since" in service.sda("status").stdout
    # What is for the daemon alone does not reach its workers.
    (worker, *_) = service.workers()
    names = {line.partition("=")[0] for line in service.read(Path(f"/proc/{worker}/environ")).split("\0")}
    assert "INVOCATION_ID" in names
    assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"}


def test_installing_again_changes_nothing_and_uninstalling_takes_it_away(service: Lab) -> None:
    """The second time every file is up to date; a file of somebody else's is refused; in the end no file is left."""
    again = service.sda("systemd-unit", "--system", "--install").stdout
    assert again.count("is up to date") == 3  # user, unit, drop-in
    assert "wrote" not in again
    gone = service.sda("systemd-unit", "--system", "--uninstall").stdout
    assert f"removed {UNITS / SERVICE}" in gone
    assert service.show("LoadState") == "not-found" or service.show("ActiveState") == "inactive"
    left = [UNITS / SERVICE, Path("/etc/sysusers.d/sda-daemon.conf"), Path("/etc/tmpfiles.d/sda-daemon.conf")]
    assert not any(service.exists(path) for path in left)
    assert service.exists(CONFIG)
    assert "is not installed" in service.sda("systemd-unit", "--system", "--uninstall").stdout
    service.put(UNITS / SERVICE, "[Service]\nExecStart=/bin/true\n")
    refused = service.sda("systemd-unit", "--system", "--install", check=False)
    assert refused.returncode == 1
    assert "was not written by this command" in refused.stderr


def test_an_installation_that_cannot_start_says_why(lab: Lab) -> None:
    """Missing rights are told before, with the command that helps; the error itself is shown, not only its log."""
    lab.run("install", "-d", "-m", "700", "/srv/private")
    lab.run("mkdir", "-p", str(DROP))
    lab.put(CONFIG, f"models_dir: /srv/private\nwatch:\n  - path: {DROP}\n")
    done = lab.sda("systemd-unit", "--system", "--install", check=False)
    assert done.returncode == 1
    assert "careful: the user sda-daemon may not write to /srv/private" in done.stdout
    assert "is installed, but does not start: /srv/private cannot be locked" in done.stderr
    assert "runs as the user sda-daemon, who is not let in" in done.stderr
    assert lab.sda("systemd-unit", "--system", "--run-as", "nobody-at-all", "--install", check=False).returncode == 1


def test_reload_applies_a_good_config_and_fails_on_a_bad_one(service: Lab, small_checkpoints: Checkpoints) -> None:
    """`systemctl reload` waits until the new config is in force; with a bad one it fails and the old one stays."""
    if service.sda("config", "check", str(CONFIG), check=False).returncode != 0:
        pytest.skip("there is no `config check` yet")
    pid = service.show("MainPID")
    good = service.read(CONFIG)
    service.put(CONFIG, good + 'metadata:\n  name: "renamed {{ epoch }}"\n')
    service.systemctl("reload", SERVICE)
    service.put(DROP / "a" / "x.pt", small_checkpoints(1).read_bytes())
    (entry,) = service.wait_for("conversion.succeeded")
    assert entry["SDA_NAME"] == "renamed 7"
    service.put(CONFIG, good + "wrokers: 3\n")
    assert service.systemctl("reload", SERVICE, check=False).returncode != 0
    assert service.show("ActiveState") == "active"
    assert service.show("MainPID") == pid
    service.put(DROP / "b" / "x.pt", small_checkpoints(2).read_bytes())
    # The template of before the bad one; the name is taken, so the time tells the two apart.
    assert service.wait_for("conversion.succeeded", count=2)[1]["SDA_NAME"].startswith("renamed 7 (")


def test_killed_it_comes_back_and_goes_on(service: Lab, small_checkpoints: Checkpoints) -> None:
    """SIGKILL of the main process: restarted, and what was dropped in between converts once."""
    pid = service.show("MainPID")
    service.run("kill", "-KILL", pid)
    service.put(DROP / "a" / "x.pt", small_checkpoints(1).read_bytes())
    service.wait_until("NRestarts", "1")
    service.wait_until("SubState", "running")
    service.wait_for("conversion.succeeded")
    assert service.show("MainPID") != pid
    assert len(service.entries("SDA_EVENT=conversion.succeeded")) == 1


def test_a_killed_worker_is_replaced(service: Lab, small_checkpoints: Checkpoints) -> None:
    """SIGKILL of every worker: the service stays as it is, and the next checkpoint converts all the same."""
    pid = service.show("MainPID")
    service.put(DROP / "a" / "x.pt", small_checkpoints(1).read_bytes())
    service.wait_for("conversion.succeeded")
    workers = service.workers()
    assert workers
    service.run("kill", "-KILL", *workers)
    service.put(DROP / "b" / "x.pt", small_checkpoints(2).read_bytes())
    service.wait_for("conversion.succeeded", count=2)
    assert (service.show("MainPID"), service.show("NRestarts")) == (pid, "0")


def test_the_watchdog_ends_a_hang_of_the_loop(service: Lab, small_checkpoints: Checkpoints) -> None:
    """The loop waits for a lock that is never released, while all other threads live: killed, restarted, at work."""
    service.tune("RestartSec=100ms\nEnvironment=SDA_DAEMON__WORKERS=1\nWatchdogSec=2")
    service.systemctl("daemon-reload")
    service.systemctl("restart", SERVICE)
    hold = (
        "import sqlite3, time; db = sqlite3.connect('/var/lib/sda-daemon/ledger.sqlite3', isolation_level=None);"
        "db.execute('BEGIN EXCLUSIVE'); open('/run/held', 'w'); time.sleep(600)"
    )
    service.run("systemd-run", "--unit=holder", "/usr/bin/env", "python3", "-c", hold)
    eventually(lambda: service.exists(Path("/run/held")), "the ledger is locked")
    service.put(DROP / "a" / "x.pt", small_checkpoints(1).read_bytes())
    eventually(lambda: service.show("NRestarts") not in ("0", ""), "a restart")
    service.run("systemctl", "stop", "holder.service")
    assert any("Watchdog timeout" in str(entry["MESSAGE"]) for entry in service.entries("-u", SERVICE))
    # Where it hung is in the log.
    told = "\n".join(str(entry["MESSAGE"]) for entry in service.entries(f"_SYSTEMD_UNIT={SERVICE}"))
    assert "Fatal Python error: Aborted" in told
    assert "ledger.py" in told
    service.wait_for("conversion.succeeded")


def test_an_idle_service_is_not_taken_for_hung(service: Lab) -> None:
    """With nothing to do, and a watchdog quicker than its own pauses, it goes on being heard."""
    service.tune("WatchdogSec=1")
    service.systemctl("daemon-reload")
    service.systemctl("restart", SERVICE)
    pid = service.show("MainPID")

    def pings() -> int:
        return int(service.show("WatchdogTimestampMonotonic"))

    first = pings()
    eventually(lambda: pings() > first + 5_000_000, "five seconds of pings")
    assert (service.show("MainPID"), service.show("NRestarts")) == (pid, "0")


def test_stop_waits_for_conversions_and_loses_none(service: Lab, small_checkpoints: Checkpoints) -> None:
    """A stop in the middle of the work is a clean exit with status 0; the next start does the rest, none twice."""
    for seed in range(8):
        service.put(DROP / f"run{seed}" / "x.pt", small_checkpoints(seed).read_bytes())
    service.wait_for("conversion.started")
    service.systemctl("stop", SERVICE)
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    assert service.wait_for("daemon.stopped")[0]["SDA_REASON"] == "SIGTERM"
    service.systemctl("start", SERVICE)
    files = eventually(
        lambda: (
            service.run("find", str(MODELS), "-name", "*.sda").stdout.split()
            if len(service.entries("SDA_EVENT=conversion.succeeded")) >= 8
            else []
        ),
        "eight models",
    )
    assert len(files) == 8
    assert len(service.entries("SDA_EVENT=library.entry_added")) == 8


def test_outside_its_folders_nothing_can_be_written(service: Lab) -> None:
    """The kernel refuses writes elsewhere, and a library elsewhere is told as a matter of the sandbox: status 73."""
    pid = service.show("MainPID")
    service.run("mkdir", "-m", "777", "/srv/elsewhere")
    inside = ["nsenter", "-t", pid, "-m", "sh", "-c"]
    refused = service.run(*inside, "touch /srv/elsewhere/x", check=False)
    assert "Read-only file system" in refused.stderr
    assert service.run(*inside, f"touch {MODELS}/x && rm {MODELS}/x").returncode == 0
    config = service.read(CONFIG)
    service.put(CONFIG, config.replace(str(MODELS), "/srv/elsewhere"))
    service.systemctl("restart", SERVICE, check=False)
    service.wait_until("ExecMainStatus", "73")
    *_, last = service.entries("-p", "err", "-t", "sda-daemon")
    assert "ReadWritePaths=/srv/elsewhere" in last["MESSAGE"]
    assert "sandbox" in last["MESSAGE"]
    # What it says to do is what helps.
    service.sda("systemd-unit", "--system", "--install")
    assert service.show("ActiveState") == "active"


def test_a_bad_config_at_the_start_is_no_restart_loop(service: Lab) -> None:
    """Exit status 78, once; `journalctl -p err` shows line, key and what would be right."""
    service.put(CONFIG, service.read(CONFIG) + "wrokers: 3\n")
    assert service.systemctl("restart", SERVICE, check=False).returncode != 0
    service.wait_until("ActiveState", "failed")
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("78", "0")
    (told,) = service.entries("-p", "err", "-t", "sda-daemon")
    assert "wrokers" in told["MESSAGE"]
    assert "did you mean 'workers'?" in told["MESSAGE"]


def test_another_daemon_and_nothing_to_watch_have_codes_of_their_own(service: Lab) -> None:
    """69 for the second daemon on a library, 66 for folders that can never be watched; neither looks like the other."""
    second = service.run("env", "STATE_DIRECTORY=/run/other", *service_command(), check=False)
    assert second.returncode == 69
    assert "another daemon is at work" in second.stderr
    service.systemctl("stop", SERVICE)
    service.run("sh", "-c", f"rm -r {DROP} && touch {DROP}")
    service.systemctl("start", SERVICE, check=False)
    service.wait_until("ActiveState", "failed")
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("66", "0")
    (told,) = service.entries("-p", "err", "-t", "sda-daemon")
    assert f"{DROP}: it is not a folder" in told["MESSAGE"]


def service_command() -> list[str]:
    """Return the command of the service, to be run by hand."""
    from tests.integration.systemd.lab import COMMAND

    return [*COMMAND, "run", "--config", str(CONFIG)]


def test_folders_in_homes_and_in_tmp(lab: Lab, small_checkpoints: Checkpoints) -> None:
    """What the sandbox hides is brought in by the drop-in: watched natively, written to, moved between."""
    lab.run("useradd", "--create-home", "--uid", "4322", "alice")
    lab.run("chmod", "700", "/home/alice")
    lab.run("install", "-d", "-o", "alice", "/home/alice/my runs", "/home/alice/models", "/tmp/runs", "/tmp/done")
    lab.put(
        CONFIG,
        "models_dir: /home/alice/models\nworkers: 1\nwatch:\n  - path: /home/alice/my runs\n    settle_s: 200ms\n"
        "  - path: /tmp/runs\n    settle_s: 200ms\n    after: move\n    move_to: /tmp/done\n",
    )
    lab.sda("systemd-unit", "--system", "--run-as", "alice", "--install")
    assert lab.show("StatusText") == "watching 2 folders; nothing to do"
    assert {entry["SDA_OBSERVER"] for entry in lab.wait_for("watch.started", count=2)} == {"native"}
    lab.put(Path("/home/alice/my runs/rain/x.pt"), small_checkpoints(1).read_bytes())
    lab.put(Path("/tmp/runs/wind/x.pt"), small_checkpoints(2).read_bytes())
    lab.run("chown", "-R", "alice", "/tmp/runs", "/home/alice/my runs")
    assert {entry["SDA_NAME"] for entry in lab.wait_for("conversion.succeeded", count=2)} == {
        "rain epoch 7",
        "wind epoch 7",
    }
    eventually(lambda: lab.exists(Path("/tmp/done/wind/x.pt")), "the checkpoint is moved")
    assert lab.run("stat", "-c", "%U", "/home/alice/models/rain_epoch_7.sda").stdout.strip() == "alice"
    pid = lab.show("MainPID")
    assert "README" not in lab.run("nsenter", "-t", pid, "-m", "ls", "/home").stdout
    assert lab.run("nsenter", "-t", pid, "-m", "ls", "/home/alice").stdout.split() == ["models", "my", "runs"]


def test_two_instances_with_a_library_each(lab: Lab, small_checkpoints: Checkpoints) -> None:
    """`sda-daemon@rain` and `sda-daemon@wind` run side by side, each with its config, state and models."""
    for name in ("rain", "wind"):
        lab.put(
            Path(f"/etc/sda-daemon/{name}.yaml"),
            f"models_dir: /srv/{name}/models\nworkers: 1\nwatch:\n  - path: /srv/{name}/in\n    settle_s: 200ms\n",
        )
        lab.run("mkdir", "-p", f"/srv/{name}/in")
        lab.sda("systemd-unit", "--system", "--instance", name, "--install")
    for seed, name in enumerate(("rain", "wind")):
        service = f"sda-daemon@{name}.service"
        lab.put(Path(f"/srv/{name}/in/{name}/x.pt"), small_checkpoints(seed).read_bytes())
        (entry,) = lab.wait_for("conversion.succeeded", f"_SYSTEMD_UNIT={service}")
        assert entry["SDA_NAME"] == f"{name} epoch 7"
        assert lab.exists(Path(f"/srv/{name}/models/{name}_epoch_7.sda"))
        assert lab.exists(Path(f"/var/lib/sda-daemon/{name}/ledger.sqlite3"))
    lab.sda("systemd-unit", "--system", "--instance", "rain", "--uninstall")
    assert lab.show("ActiveState", "sda-daemon@wind.service") == "active"
    assert lab.exists(UNITS / "sda-daemon@.service")
