"""The config file, edited in every way while a real daemon runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from sda_daemon.library import ModelLibrary
from sda_daemon.models.header import read_model_header
from tests.daemon_process import DEADLINE_S, DaemonProcess, eventually, patch_workers

Drop = Callable[..., Path]
Editing = Callable[[Path, str], None]


def text_of(daemon: DaemonProcess, **changes: Any) -> str:
    """Return the config with changes of its top-level keys, which stay for the next time."""
    daemon.settings.update(changes)
    return yaml.safe_dump(daemon.settings, sort_keys=False)


def save(path: Path, text: str) -> None:
    """Write it beside its place and rename it."""
    temporary = path.with_name(".new")
    temporary.write_text(text)
    temporary.replace(path)


def reload(daemon: DaemonProcess, **changes: Any) -> dict[str, Any]:
    """Save a changed config and wait until it is in force."""
    mark = daemon.mark()
    save(daemon.config, text_of(daemon, **changes))
    return daemon.wait_for("config.reloaded", after=mark)[0]


# --- ways of saving ---------------------------------------------------------------------------------


def as_vim_does(path: Path, text: str) -> None:
    """Rename the old file to a backup, write a new one, delete the backup."""
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def truncate_and_write(path: Path, text: str) -> None:
    """In pieces, with the file empty first and half written then."""
    with path.open("w") as file:
        for start in range(0, len(text), 40):
            file.write(text[start : start + 40])
            file.flush()


def delete_and_recreate(path: Path, text: str) -> None:
    """As some synchronizing programs do."""
    path.unlink()
    path.write_text(text)


def replace_by_link(path: Path, text: str) -> None:
    """The file becomes a symbolic link to one elsewhere."""
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "sda.yaml").write_text(text)
    (path.parent / "link").symlink_to(elsewhere / "sda.yaml")
    (path.parent / "link").replace(path)


def same_size_same_time(path: Path, text: str) -> None:
    """The time of modification stays: only the content tells."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon whose config is edited in one way after the other."""
    process = DaemonProcess(tmp_path_factory.mktemp("daemon"))
    process.write_config(metadata={"name": "old {{ run }}"})
    try:
        yield process.start()
        assert process.stop() == 0
    finally:
        process.kill()


@pytest.mark.parametrize("edit", [save, as_vim_does, truncate_and_write, delete_and_recreate, replace_by_link,
                                  same_size_same_time])  # fmt: skip
def test_b27_a_saved_config_is_in_force(running: DaemonProcess, drop: Drop, edit: Editing) -> None:
    """However it is saved: one reload that says what changed, nothing rejected, and the next model has the new name."""
    daemon = running
    if "new" in daemon.config.read_text():
        reload(daemon, metadata={"name": "old {{ run }}"})
    mark, run = daemon.mark(), edit.__name__
    edit(daemon.config, text_of(daemon, metadata={"name": "new {{ run }}"}))
    (event,) = daemon.wait_for("config.reloaded", after=mark)
    assert event["changed"] == ["metadata.name: 'old {{ run }}' → 'new {{ run }}'"]
    path = drop(daemon.drop / run / "x.pt", seed=len(daemon.models()))
    (made,) = daemon.wait_for("conversion.succeeded", path=str(path))
    assert made["name"] == f"new {run}"
    assert f"new {run}" in [entry.name for entry in daemon.models()]
    assert daemon.events("config.rejected", mark) == []
    assert len(daemon.events("config.reloaded", mark)) == 1


def test_b27_a_mounted_config_map(daemon: DaemonProcess) -> None:
    """`config.yaml → ..data/config.yaml`, `..data → ..version`: an update swaps `..data`, twice."""
    daemon.write_config(workers=1)
    mount = daemon.base / "mount"
    for version in (1, 2, 3):
        folder = mount / f"..version{version}"
        folder.mkdir(parents=True)
        base = {key: str(daemon.base / daemon.settings[key]) for key in ("models_dir", "state_dir")}
        watch = [{"path": str(daemon.drop), "settle_s": 0.5}]
        (folder / "config.yaml").write_text(yaml.safe_dump({**base, "watch": watch, "workers": version}))
    (mount / "..data").symlink_to("..version1")
    (mount / "config.yaml").symlink_to("..data/config.yaml")
    daemon.config = mount / "config.yaml"
    daemon.start()
    for version in (2, 3):
        (mount / "..tmp").symlink_to(f"..version{version}")
        (mount / "..tmp").rename(mount / "..data")
        shutil.rmtree(mount / f"..version{version - 1}")
        daemon.wait_for("config.reloaded", changed=[f"workers: {version - 1} → {version}"])
    assert daemon.events("config.rejected") == []


BAD_VERSIONS = [
    ("", None, "", "the file is empty"),
    ("GOODworkerz: 1\n", 5, "workerz", "did you mean 'workers'?"),
    ("GOODmetadata:\n  name: '{{ run'\n", None, "metadata.name", "it is no template"),
    ("GOODmetadata:\n  name: '{{ epcoh }}'\n", None, "metadata.name", "did you mean 'epoch'?"),
    ("GOODmetadata:\n  name: '{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}'\n", None,
     "metadata.name", "it does too much"),
    ("GOODmetadata: {{ run }}\n", None, "", "a template needs quotes"),
    ("GOODmodels_dir: /proc/nowhere/models\n", None, "models_dir", "given twice"),
]  # fmt: skip


def test_b27_a_bad_version_is_rejected_once_and_the_old_one_stays(daemon: DaemonProcess, drop: Drop) -> None:
    """One event with line, key and reason for each; conversions go on; the next valid one is in force."""
    daemon.write_config(metadata={"name": "good {{ run }}"})
    daemon.start()
    plain = "models_dir: models\nstate_dir: state\nwatch:\n  - {path: drop, settle_s: 0.5}\n"
    for number, (text, line, key, reason) in enumerate(BAD_VERSIONS):
        mark = daemon.mark()
        daemon.config.write_text(text.replace("GOOD", plain))
        (event,) = daemon.wait_for("config.rejected", after=mark)
        assert (event["key"], event["path"]) == (key, str(daemon.config))
        assert reason in event["reason"]
        assert line is None or event["line"] == line
        drop(daemon.drop / f"run{number}" / "x.pt", seed=number)
        daemon.wait_for_models(number + 1)
        assert len(daemon.events("config.rejected", after=mark)) == 1
    daemon.config.unlink()
    daemon.wait_for("config.rejected", reason=f"{daemon.config} is gone")
    assert {entry.name for entry in daemon.models()} == {f"good run{number}" for number in range(len(BAD_VERSIONS))}
    mark = daemon.mark()
    save(daemon.config, text_of(daemon, metadata={"name": "better {{ run }}"}))
    daemon.wait_for("config.reloaded", after=mark)
    drop(daemon.drop / "last" / "x.pt", seed=99)
    eventually(lambda: "better last" in [entry.name for entry in daemon.models()], "a model by the better version")
    assert daemon.stop() == 0


def test_b27_what_cannot_be_put_into_force_changes_nothing(daemon: DaemonProcess, drop: Drop) -> None:
    """Two phases: a models folder that cannot be made refuses the whole version, its good parts too."""
    daemon.start()
    (daemon.base / "file").write_text("no folder")
    save(daemon.config, text_of(daemon, models_dir="file/models", metadata={"name": "never"}, workers=2))
    (event,) = daemon.wait_for("config.rejected")
    assert "models_dir" in event["reason"]
    drop(daemon.drop / "rain" / "x.pt", seed=1)
    (entry,) = daemon.wait_for_models(1)
    assert entry.name == "rain epoch 7"
    other = DaemonProcess(daemon.base / "drop")  # its drop folder is of no interest here
    other.models_dir, other.settings["watch"] = other.base / "models", [{"path": "drop"}]
    other.start()
    try:
        save(daemon.config, text_of(daemon, models_dir=str(other.models_dir)))
        daemon.wait_for("config.rejected", reason=f"another daemon is at work on {other.models_dir}")
    finally:
        other.kill()
    reload(daemon, models_dir="models")


def test_sighup_reads_it_again(daemon: DaemonProcess) -> None:
    """Also when nothing has changed, and a version that was refused is refused again."""
    daemon.start()
    daemon.send(signal.SIGHUP)
    (event,) = daemon.wait_for("config.reloaded")
    assert event["changed"] == []
    daemon.config.write_text("nonsense: 1\n")
    daemon.wait_for("config.rejected", count=1)
    daemon.send(signal.SIGHUP)
    daemon.wait_for("config.rejected", count=2)
    assert daemon.stop() == 0


# --- what works live --------------------------------------------------------------------------------


def test_watched_folders_come_go_and_change(daemon: DaemonProcess, drop: Drop) -> None:
    """A new one is looked through; of one that is gone nothing converts; another pattern finds more."""
    daemon.start()
    more = daemon.base / "more"
    drop(more / "early" / "x.pt", seed=1)
    event = reload(daemon, watch=[{"path": "drop", "settle_s": 0.5}, {"path": "more", "settle_s": 0.5}])
    assert event["changed"] == [f"watch[{more}]: added"]
    daemon.wait_for_models(1)
    drop(more / "late" / "x.pt", seed=2)
    daemon.wait_for_models(2)
    reload(daemon, watch=[{"path": "more", "settle_s": 0.5, "patterns": ["*.weights"]}])
    drop(daemon.drop / "gone" / "x.pt", seed=3)
    drop(more / "other" / "x.pt", seed=4)
    drop(more / "wanted" / "x.weights", seed=5)
    daemon.wait_for_models(3)
    assert {entry.dataset_name for entry in daemon.models()} == {"early", "late", "wanted"}
    reload(daemon, watch=[{"path": "more", "settle_s": 0.5, "observer": "polling", "poll_interval_s": 0.2}])
    daemon.wait_for("watch.started", path=str(more), observer="polling")
    daemon.wait_for_models(4)
    assert not daemon.events("checkpoint.seen", path=str(daemon.drop / "gone" / "x.pt"))
    assert daemon.stop() == 0


def test_models_go_to_another_folder(daemon: DaemonProcess, drop: Drop) -> None:
    """The new folder is used, the old one is let go of, and stays as it is."""
    daemon.start()
    drop(daemon.drop / "a" / "x.pt", seed=1)
    daemon.wait_for_models(1)
    reload(daemon, models_dir="other")
    drop(daemon.drop / "b" / "x.pt", seed=2)
    other = daemon.base / "other"
    eventually(
        lambda: [entry.dataset_name for entry in ModelLibrary(other).list_all()] == ["b"], "b in the other folder"
    )
    assert [entry.dataset_name for entry in daemon.models()] == ["a"]
    assert not list(daemon.models_dir.glob(".sda-work-*"))
    (daemon.base / "second").mkdir()
    second = DaemonProcess(daemon.base / "second")
    second.write_config(models_dir=str(daemon.models_dir))
    second.start()  # would end at once if the first daemon still held the folder
    assert second.stop() == 0
    reload(daemon, models_dir="models")
    drop(daemon.drop / "c" / "x.pt", seed=3)
    daemon.wait_for_models(2)
    assert daemon.stop() == 0
    assert not list(other.glob(".sda-work-*"))


def test_a_conversion_ends_as_it_began(daemon: DaemonProcess, drop: Drop) -> None:
    """Under way while models_dir, templates and workers change: it keeps the old ones, the next has the new ones."""
    daemon.write_config(metadata={"name": "old {{ run }}"}, workers=1, conversion={"time_limit_s": "5m"})
    daemon.start()
    drop(daemon.drop / "warm" / "x.pt", seed=1)
    daemon.wait_for("conversion.succeeded")
    children = psutil.Process(daemon.pid).children(recursive=True)
    workers = [child for child in children if any("spawn_main" in part for part in child.cmdline())]
    assert workers
    for worker in workers:
        worker.suspend()
    mark = daemon.mark()
    try:
        drop(daemon.drop / "first" / "x.pt", seed=2)
        daemon.wait_for("conversion.started", after=mark)
        changes = {"metadata": {"name": "new {{ run }}"}, "conversion": {"time_limit_s": "4m"}}
        reload(daemon, models_dir="other", workers=2, **changes)
        assert not daemon.events("conversion.succeeded", after=mark)
    finally:
        for worker in workers:
            worker.resume()
    daemon.wait_for("conversion.succeeded", after=mark)
    drop(daemon.drop / "second" / "x.pt", seed=3)
    daemon.wait_for("conversion.succeeded", after=mark, count=2)
    assert [entry.name for entry in ModelLibrary(daemon.base / "other").list_all()] == ["new second"]
    assert {entry.name for entry in daemon.models()} == {"old warm", "old first"}
    psutil.wait_procs(workers, timeout=DEADLINE_S)
    assert not any(worker.is_running() for worker in workers), "the workers of the old config are let go of"
    assert not list(daemon.models_dir.glob(".sda-work-*"))
    assert daemon.stop() == 0


def test_more_workers_work_at_once(daemon: DaemonProcess, drop: Drop) -> None:
    """With one worker one conversion is under way; after the reload two are."""
    daemon.write_config(workers=1)
    daemon.start()
    for count in (1, 2):
        if count == 2:
            reload(daemon, workers=2)
        mark = daemon.mark()
        drop(daemon.drop / f"warm{count}" / "x.pt", seed=count)
        daemon.wait_for("conversion.succeeded", after=mark)
        children = psutil.Process(daemon.pid).children()
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == count
        for worker in workers:
            worker.suspend()
        mark = daemon.mark()
        try:
            for seed in range(10 * count, 10 * count + 4):
                drop(daemon.drop / f"run{seed}" / "x.pt", seed=seed)
            daemon.wait_for("checkpoint.settled", count=4, after=mark)
            daemon.wait_for("conversion.started", count=count, after=mark)
            daemon.status(lambda facts: len(facts["converting"]) == count)  # noqa: B023
            assert len(daemon.events("conversion.started", mark)) == count
        finally:
            for worker in workers:
                worker.resume()
        daemon.wait_for("conversion.succeeded", count=4, after=mark)
    assert daemon.stop() == 0


def test_the_log_level_changes(daemon: DaemonProcess) -> None:
    """Debug events appear, and disappear."""
    daemon.start()
    assert not daemon.events("rescan.started")
    reload(daemon, logging={"level": "debug"})
    daemon.wait_for("rescan.started")
    mark = daemon.mark()
    save(daemon.config, text_of(daemon, logging={"level": "error"}))
    eventually(lambda: daemon.models_dir.exists() and not daemon.events("config.rejected"), "no rejection")
    save(daemon.config, text_of(daemon, logging={"level": "debug"}, workers=2))
    daemon.wait_for("config.reloaded", after=mark)
    assert daemon.stop() == 0


def test_the_state_folder_needs_a_restart(daemon: DaemonProcess, drop: Drop) -> None:
    """It is named, keeps its old value, and the rest of the version is in force."""
    daemon.start()
    event = reload(daemon, state_dir="elsewhere", workers=2)
    assert event["changed"] == ["workers: 1 → 2"]
    (required,) = daemon.events("config.restart_required")
    assert required["keys"] == ["state_dir"]
    assert str(daemon.base / "elsewhere") in required["hint"]
    drop(daemon.drop / "a" / "x.pt", seed=1)
    daemon.wait_for_models(1)
    assert not (daemon.base / "elsewhere").exists()
    assert daemon.stop() == 0


def test_rules_skip_and_come_off_again(daemon: DaemonProcess, drop: Drop) -> None:
    """By path before anything is read, by condition in the worker; each says so once; then they convert."""
    skip = [{"match": "drafts/*", "skip": True}, {"match": "*", "when": "epoch == 7 and 'late' in run", "skip": True}]
    daemon.write_config(rules=skip)
    draft = drop(daemon.drop / "drafts" / "x.pt", seed=1)
    late = drop(daemon.drop / "late" / "x.pt", seed=2)
    daemon.start()
    by_path = daemon.wait_for("checkpoint.skipped", path=str(draft))[0]
    assert by_path["reason"] == "rules[0] (match 'drafts/*') says skip"
    by_fact = daemon.wait_for("checkpoint.skipped", path=str(late))[0]
    assert by_fact["reason"] == "rules[1] (match '*' when epoch == 7 and 'late' in run) says skip"
    assert not daemon.events("checkpoint.seen", path=str(draft))
    os.utime(draft)
    daemon.send(signal.SIGHUP)
    daemon.wait_for("rescan.finished", reason="config reloaded")
    assert not daemon.events("conversion.failed")
    assert daemon.stop() == 0
    mark = daemon.mark()
    daemon.start()
    assert not daemon.events("checkpoint.skipped", after=mark), "they are remembered"
    reload(daemon, rules=[])
    assert {entry.dataset_name for entry in daemon.wait_for_models(2)} == {"drafts", "late"}
    assert daemon.stop() == 0


def test_a_template_that_fails_at_night_is_tried_again_with_a_better_one(daemon: DaemonProcess, drop: Drop) -> None:
    """What only a real checkpoint shows is one failure, and a reload is all it takes."""
    daemon.write_config(metadata={"name": "{{ sidecar.operator }}"})
    daemon.start()
    drop(daemon.drop / "rain" / "x.pt", seed=1)
    (failed,) = daemon.wait_for("conversion.failed")
    assert failed["kind"] == "template"
    assert failed["reason"].startswith("metadata.name: there is no 'operator' in sidecar")
    reload(daemon, metadata={"name": "{{ sidecar.operator | default('Ada') }}"})
    (entry,) = daemon.wait_for_models(1)
    assert entry.name == "Ada"
    assert daemon.stop() == 0


def test_a_template_that_is_endless_only_for_some_facts_is_cut_off(daemon: DaemonProcess, drop: Drop) -> None:
    """It passes the examples; in the worker it is one failed conversion, and the next checkpoint converts."""
    loops = "{% for a in sidecar.list %}" * 4 + "{% endfor %}" * 4
    daemon.write_config(metadata={"name": "{{ run }}{% if sidecar.list is defined %}" + loops + "{% endif %}"})
    daemon.start()
    sidecar = daemon.drop / "rain" / "x.pt.meta.json"
    sidecar.parent.mkdir()
    sidecar.write_text('{"list": [' + ", ".join("1" * 500) + "]}")
    drop(daemon.drop / "rain" / "x.pt", seed=1)
    (failed,) = daemon.wait_for("conversion.failed")
    assert (failed["kind"], failed["permanent"]) == ("template", True)
    assert failed["reason"] == "metadata.name: it does too much: it takes more than 10000 steps"
    drop(daemon.drop / "sun" / "x.pt", seed=2)
    (entry,) = daemon.wait_for_models(1)
    assert entry.name == "sun"
    assert daemon.stop() == 0


def test_notes_beside_the_recordings(daemon: DaemonProcess, drop: Drop) -> None:
    """They describe what lies below them; a broken one is told of and stops nothing."""
    (daemon.drop / "rain").mkdir()
    (daemon.drop / "rain" / "sda.yaml").write_text("dataset_name: Rain on tin\ndataset_file_count: 12\ntags: [wet]\n")
    broken = daemon.drop / "rain" / "broken" / "sda.yaml"
    broken.parent.mkdir()
    broken.write_text("nmae: x\n")
    daemon.start()
    checkpoint = drop(broken.parent / "checkpoints" / "x.pt", seed=1)
    (entry,) = daemon.wait_for_models(1)
    assert (entry.name, entry.dataset_name) == ("broken epoch 7", "Rain on tin")
    assert (entry.dataset_file_count, entry.tags) == (12, ["wet"])
    (ignored,) = daemon.wait_for("notes.ignored")
    assert (ignored["path"], ignored["checkpoint"]) == (str(broken), str(checkpoint))
    assert "did you mean 'name'?" in ignored["reason"]
    assert daemon.stop() == 0


def test_status_can_tell_of_the_config(daemon: DaemonProcess) -> None:
    """When it was read, from where, and why the newest version was refused: published with the daemon's state."""
    import json
    import sqlite3

    def published() -> dict[str, Any]:
        with sqlite3.connect(daemon.base / "state" / "ledger.sqlite3") as database:
            rows = dict(database.execute("SELECT key, value FROM report"))
        state: dict[str, Any] = json.loads(rows["daemon"])["config_state"] if "daemon" in rows else {}
        return state

    daemon.start()
    first = eventually(published, "the daemon's state")
    assert (first["path"], first["error"]) == (str(daemon.config), "")
    daemon.config.write_text("workerz: 1\n")
    error = eventually(lambda: published()["error"], "the error")
    assert "workerz: there is no such key" in error
    assert published()["read_at"] == first["read_at"]
    reload(daemon, workers=2)
    eventually(lambda: published()["error"] == "", "no error any more")
    assert daemon.stop() == 0


@pytest.mark.slow
def test_editing_while_a_hundred_checkpoints_convert(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """None is lost, and each has name, description and tag by the version of the templates that it began with.

    Workers take a ticket for each checkpoint and wait until the gate is raised above it, so that conversions are
    under way while each version comes into force, on machines of every speed.
    """
    body = """
        folder, ticket = os.environ["SDA_TEST_TICKETS"], 0
        while True:
            try:
                os.close(os.open(f"{folder}/{ticket}", os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                ticket += 1
        while not os.path.exists(f"{folder}/up-to-{ticket}"):
            time.sleep(0.005)
        return read(path)
    """
    tickets = tmp_path / "tickets"
    tickets.mkdir()

    def templates(version: int) -> dict[str, Any]:
        return {
            "name": f"v{version} {{{{ run }}}}",
            "description": f"{{{{ run }}}} as of v{version}",
            "tags": [f"v{version}"],
            "training_date": f"v{version}",
        }

    daemon.write_config(metadata=templates(0), workers=2)
    daemon.start(env={**patch_workers(tmp_path / "site", body), "SDA_TEST_TICKETS": str(tickets)})
    for seed in range(100):
        drop(daemon.drop / f"run{seed:03}" / "x.pt", seed=seed)
    let_through, each = 0, 8
    for number in range(1, 100 // each + 1):
        eventually((tickets / str(let_through)).exists, "a conversion is under way")
        reload(daemon, metadata=templates(number), workers=2 - number // 3 % 2)
        for ticket in range(let_through, let_through + each):
            (tickets / f"up-to-{ticket}").touch()
        let_through += each
        daemon.wait_for("conversion.succeeded", count=let_through)
    for ticket in range(let_through, 100):
        (tickets / f"up-to-{ticket}").touch()
    entries = daemon.wait_for_models(100)
    assert {entry.dataset_name for entry in entries} == {f"run{seed:03}" for seed in range(100)}
    used = set()
    for entry in entries:
        match = re.fullmatch(r"(v\d+) run\d+", entry.name)
        assert match is not None
        version = match[1]
        assert entry.description == f"{entry.dataset_name} as of {version}"
        assert (entry.tags, entry.training_date) == ([version], version)
        stored = read_model_header(daemon.models_dir / entry.file_path).metadata
        assert (stored.name, stored.description, stored.tags) == (entry.name, entry.description, [version])
        used.add(version)
    assert used == {f"v{number}" for number in range(100 // each + 1)}
    assert daemon.events("conversion.failed") == []
    assert daemon.stop() == 0


def test_the_config_of_the_repository_runs(tmp_path: Path) -> None:
    """`config/sda-daemon.yaml` as it is, with its folders somewhere else by the environment."""
    config = Path(__file__).resolve().parents[2] / "config" / "sda-daemon.yaml"
    (tmp_path / "drop").mkdir()
    environment = {
        **os.environ,
        "SDA_DAEMON__MODELS_DIR": str(tmp_path / "models"),
        "SDA_DAEMON__STATE_DIR": str(tmp_path / "state"),
        "SDA_DAEMON__WATCH__0__PATH": str(tmp_path / "drop"),
        "SDA_DAEMON__LOGGING__FORMAT": "json",
    }
    command = [sys.executable, "-m", "sda_daemon", "run", "--once", "--config", str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f'"models_dir": "{tmp_path / "models"}"' in done.stderr
