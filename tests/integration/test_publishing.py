"""b22 to b26: the library is whole and true, whatever is done to it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sda_daemon.models.header import read_model_header
from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]
INDEX = "model_library.json"


def index_of(daemon: DaemonProcess) -> dict[str, str]:
    """What the index on disk says: id to file name."""
    data = json.loads((daemon.models_dir / INDEX).read_bytes())
    return {model_id: values["file_path"] for model_id, values in data["models"].items()}


def is_true(daemon: DaemonProcess) -> bool:
    """Whether the index names exactly the model files, each with its right size."""
    try:
        data = json.loads((daemon.models_dir / INDEX).read_bytes())
    except (OSError, ValueError):
        return False
    sizes = {values["file_path"]: values["file_size_bytes"] for values in data["models"].values()}
    return sizes == {path.name: path.stat().st_size for path in daemon.models_dir.glob("*.sda")}


def filled(daemon: DaemonProcess, drop: Drop, count: int) -> None:
    """Start the daemon and let it make so many models."""
    daemon.start()
    for seed in range(count):
        drop(daemon.drop / f"run{seed}" / "x.pt", seed)
    daemon.wait_for("conversion.succeeded", count=count)
    daemon.wait_for_models(count)


def stocked(daemon: DaemonProcess, small_checkpoints: Callable[..., Path], count: int) -> None:
    """Put so many models into the library before the daemon is there, where it does not matter who made them."""
    from sda_daemon.models import ModelMetadata, save_model_from_checkpoint

    for seed in range(count):
        save_model_from_checkpoint(small_checkpoints(seed), ModelMetadata(name=f"run {seed}"), daemon.models_dir)


KILLS = 200
ROUNDS = 4
"""The kills are shared out over so many libraries, so that they can be made side by side."""
DIFFERENT = 15
"""How many checkpoints each of them gets."""
FORKING = """
import os, sys
import sda_daemon.cli.run, sda_daemon.settings.loading, sda_daemon.daemon.daemon, sda_daemon.logs
import sda_daemon.service.notify
from sda_daemon.cli.app import run_app
config, log = sys.argv[1:]
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 1)
        os.dup2(1, 2)
        sys.exit(run_app(["run", "--config", config]))
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@contextlib.contextmanager
def forking(daemon: DaemonProcess) -> Iterator[Callable[[], Callable[[], None]]]:
    """Give a function that starts the daemon and returns what kills it.

    Each is forked from a process that has imported everything already, so that it is at work within a few hundredths
    of a second: random moments then fall into its work, and not into what Python does before that.
    """
    command = [sys.executable, "-c", FORKING, str(daemon.config), str(daemon.log)]
    running: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        requests, answers = parent.stdin, parent.stdout

        def start() -> Callable[[], None]:
            print("start", file=requests, flush=True)
            running.append(int(answers.readline()))
            return kill

        def kill() -> None:
            os.kill(running.pop(), signal.SIGKILL)
            assert int(answers.readline()) == signal.SIGKILL, f"it had ended by itself\n{daemon.tail()}"

        try:
            yield start
        finally:
            for pid in running:
                os.kill(pid, signal.SIGKILL)


def is_at_work(daemon: DaemonProcess, mark: int) -> bool:
    """Whether a model's file is being written, or has been already since the mark."""
    if not daemon.events("conversion.started", mark):
        return False  # what a daemon that was killed has left may still lie there
    return any(daemon.models_dir.glob(".sda-work-*/*.tmp")) or bool(daemon.events("conversion.succeeded", mark))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(22, 22 + ROUNDS))
def test_b22_kill_9_anywhere(daemon: DaemonProcess, drop: Drop, seed: int) -> None:
    """200 kills at random moments of starting and converting: nothing half, nothing lost, nothing twice."""
    chance = random.Random(seed)
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.1}])
    sources = [drop(daemon.base / f"{number}.pt", number) for number in range(DIFFERENT)]
    made: set[str] = set()
    with forking(daemon) as start:
        for number in range(KILLS // ROUNDS):
            if number < DIFFERENT:  # a fresh one for each of the first, so that there is always something under way
                (daemon.drop / f"run{number}").mkdir()
                shutil.copyfile(sources[number], daemon.drop / f"run{number}" / "x.pt")
            mark = daemon.mark()
            kill = start()
            if number % 4 == 0 and number < DIFFERENT:  # these come to their work and are killed within it
                eventually(lambda: is_at_work(daemon, mark), "a file is being written")  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.4))
            kill()
            for path in daemon.models_dir.glob("*.sda"):
                made.add(read_model_header(path).metadata.model_id)  # raises on a partial file
            if (daemon.models_dir / INDEX).exists():
                json.loads((daemon.models_dir / INDEX).read_bytes())
    daemon.start()
    daemon.wait_for_models(DIFFERENT, deadline_s=300)
    eventually(lambda: is_true(daemon), "index and folder agree")
    assert daemon.stop() == 0
    assert made <= set(index_of(daemon))
    names = [path.name for path in daemon.models_dir.iterdir()]
    assert [name for name in names if name.startswith(".sda-work") or ".tmp" in name] == []


CRASHES = {
    "file is named": "sda_daemon.conversion.publish:publish_new",
    "index is written": "sda_daemon.conversion.publisher:publish",
    "models are remembered": "sda_daemon.conversion.retention:Retention.remember",
    "one of two is dealt with": "sda_daemon.conversion.publisher:_take",
    "ledger is written": "sda_daemon.daemon.session:Session._remember",
    "loser left the index": "sda_daemon.library.catalog:ModelLibrary.remove_many",
    "source is cleared": "sda_daemon.conversion.retention:Retention.clear_source",
}
"""Where the daemon ends itself, right after the named function has returned: for the second time where it is called
for each model, for the first where it is called for all that have come together."""
ONCE_FOR_ALL = ("index is written", "models are remembered", "ledger is written", "loser left the index")


@pytest.mark.parametrize("moment", CRASHES)
def test_b22_crash_between_two_steps(daemon: DaemonProcess, tmp_path: Path, moment: str) -> None:
    """Whatever two steps a crash falls between, the next start completes what was begun."""
    module, _, name = CRASHES[moment].partition(":")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"""
import importlib, os, sys
marker = {str(tmp_path / "crashed")!r}
if "run" in sys.orig_argv and not os.path.exists(marker):
    module = importlib.import_module({module!r})
    *holders, function = {name!r}.split(".")
    holder = getattr(module, holders[0]) if holders else module
    inner = getattr(holder, function)
    calls = []
    def crashing(*args, **kwargs):
        result = inner(*args, **kwargs)
        calls.append(1)
        if len(calls) == {1 if moment in ONCE_FOR_ALL else 2}:
            open(marker, "w").close()
            os._exit(9)
        return result
    setattr(holder, function, crashing)
""")
    from sda_daemon.demo.checkpoints import write_small_checkpoint

    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.1, "select": "best", "after": "delete"}], workers=1)
    daemon.start(env={"PYTHONPATH": str(site)})
    for epoch, loss in ((1, 0.5), (2, 0.2), (3, 0.3)):
        path = write_small_checkpoint(daemon.base / f"e{epoch}.pt", epoch, epoch=epoch, val_loss=loss)
        (daemon.drop / "run").mkdir(exist_ok=True)
        path.rename(daemon.drop / "run" / path.name)
    assert daemon.wait() == 9
    daemon.start(env={"PYTHONPATH": str(site)})
    eventually(lambda: not list(daemon.drop.rglob("*.pt")), "all sources are cleared")
    eventually(lambda: is_true(daemon) and len(daemon.files()) == 1, "one model, and an index that says so")
    (best,) = daemon.models()
    assert best.training_epochs == 2
    assert daemon.stop() == 0


@pytest.mark.slow
def test_b23_the_index_never_lies(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """After each thing that people and programs do to the folder, index and folder agree within seconds."""
    daemon.write_config(workers=2)
    filled(daemon, drop, 5)
    names = daemon.files()
    folder = daemon.models_dir

    def agrees(count: int) -> None:
        eventually(lambda: is_true(daemon) and len(index_of(daemon)) == count, f"{count} entries, all of them true")

    (folder / names[0]).unlink()
    agrees(4)
    (folder / names[1]).rename(folder / "renamed.sda")
    agrees(4)
    shutil.copyfile(folder / names[2], folder / "copy.sda")
    agrees(5)
    from sda_daemon.demo.checkpoints import write_small_checkpoint
    from sda_daemon.models import ModelMetadata, save_model_from_checkpoint

    elsewhere = tmp_path / "elsewhere"
    made = save_model_from_checkpoint(
        write_small_checkpoint(tmp_path / "y.pt", 50), ModelMetadata(name="from elsewhere"), elsewhere
    )
    shutil.copyfile(made, folder / "added.sda")
    agrees(6)
    shutil.copyfile(made, folder / "temporary")
    (folder / "temporary").rename(folder / names[3])
    eventually(lambda: "from elsewhere" in {e.name for e in daemon.models() if e.file_path == names[3]}, "replaced")
    agrees(6)
    (folder / INDEX).unlink()
    agrees(6)
    (folder / INDEX).write_bytes((folder / INDEX).read_bytes()[:100])
    agrees(6)
    eventually(lambda: list(folder.glob(f"{INDEX}.broken-*")), "the broken index is kept")
    data = json.loads((folder / INDEX).read_bytes())
    lost = next(iter(data["models"]))
    del data["models"][lost]
    (folder / INDEX).write_text(json.dumps(data, indent=2))
    agrees(6)
    drop(daemon.drop / "later" / "x.pt", 60)
    agrees(7)


def test_b23_the_backup_is_used(daemon: DaemonProcess, drop: Drop) -> None:
    """A broken index is set aside and its backup taken, with what only an index knows."""
    filled(daemon, drop, 2)
    daemon.stop()
    index = daemon.models_dir / INDEX
    data = json.loads(index.read_bytes())
    first = next(iter(data["models"]))
    data["models"][first]["description"] = "only the index knows"
    index.with_name(INDEX + ".bak").write_text(json.dumps(data))
    index.write_bytes(b'{"version": 1, "mod')
    mark = daemon.mark()
    daemon.start()
    (broken,) = daemon.wait_for("library.index_broken", after=mark)
    assert broken["recovered_from"] == INDEX + ".bak"
    assert (daemon.models_dir / broken["kept_as"]).read_bytes() == b'{"version": 1, "mod'
    eventually(lambda: is_true(daemon), "index and folder agree")
    assert "only the index knows" in {entry.description for entry in daemon.models()}


def test_b24_duplicates_of_an_id(daemon: DaemonProcess, small_checkpoints: Callable[..., Path]) -> None:
    """A copied file gets an id of its own, the original keeps its; a rebuilt index says the same."""
    stocked(daemon, small_checkpoints, 1)
    daemon.start()
    (original,) = daemon.models()
    shutil.copyfile(daemon.models_dir / original.file_path, daemon.models_dir / "a_copy_of_it.sda")
    daemon.wait_for_models(2)
    first = index_of(daemon)
    assert first[original.model_id] == original.file_path
    daemon.stop()
    (daemon.models_dir / INDEX).unlink()
    daemon.start()
    eventually(lambda: index_of(daemon) == first, "the same ids again")
    from sda_daemon.library import ModelLibrary

    library = ModelLibrary(daemon.models_dir)
    assert library.repair_index() == (0, 0)


@pytest.mark.parametrize("way", ["emptied", "renamed"])
def test_b25_mass_removal(daemon: DaemonProcess, drop: Drop, way: str) -> None:
    """All models gone at once is no reason to forget them; when they are back, nothing has changed."""
    filled(daemon, drop, 4)
    before = index_of(daemon)
    away = daemon.base / "away"
    if way == "emptied":
        away.mkdir()
        for name in daemon.files():
            (daemon.models_dir / name).rename(away / name)
        daemon.wait_for("library.prune_refused")
        assert index_of(daemon) == before
        for path in away.iterdir():
            path.rename(daemon.models_dir / path.name)
    else:
        daemon.models_dir.rename(away)
        daemon.wait_for("library.folder_lost")
        daemon.models_dir.mkdir()  # as an unmounted file system looks
        assert "no models" in daemon.cli("models", "list").stderr.lower()
        drop(daemon.drop / "meanwhile" / "x.pt", 40)
        daemon.wait_for("checkpoint.settled", count=5)
        shutil.rmtree(daemon.models_dir)
        away.rename(daemon.models_dir)
        daemon.wait_for("library.folder_back")
        daemon.wait_for_models(5)
        (daemon.models_dir / daemon.wait_for("conversion.succeeded", count=5)[-1]["file"]).unlink()
        eventually(lambda: len(index_of(daemon)) == 4, "the one that was deleted by hand is gone")
    eventually(lambda: is_true(daemon), "index and folder agree")
    assert index_of(daemon) == before
    drop(daemon.drop / "later" / "x.pt", 30)
    daemon.wait_for_models(5)
    assert index_of(daemon).items() >= before.items()
    assert len(daemon.events("library.entry_removed")) == (way == "renamed")


def test_b25_another_library_takes_its_place(daemon: DaemonProcess, drop: Drop) -> None:
    """A folder that was replaced by another library is taken up as it is, without a restart by hand."""
    filled(daemon, drop, 3)
    before = index_of(daemon)
    copy = daemon.base / "restored"
    shutil.copytree(daemon.models_dir, copy)
    daemon.models_dir.rename(daemon.base / "old")
    copy.rename(daemon.models_dir)
    daemon.wait_for("daemon.started", count=2)
    drop(daemon.drop / "later" / "x.pt", 30)
    daemon.wait_for_models(4)
    assert index_of(daemon).items() >= before.items()
    assert daemon.stop() == 0


def test_b26_no_way_out(daemon: DaemonProcess, small_checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    """Entries of a doctored index that point elsewhere are told, not shown, and left to a person.

    What they point to is neither read nor deleted, by the daemon, by a repair, by deleting.
    """
    stocked(daemon, small_checkpoints, 2)
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim.sda"
    real = daemon.models_dir / daemon.files()[0]
    shutil.copyfile(real, victim)
    (daemon.models_dir / "link.sda").symlink_to(victim)
    index = daemon.models_dir / INDEX
    data = json.loads(index.read_bytes())
    example = next(iter(data["models"].values()))
    evil = ["../outside/victim.sda", str(victim), "link.sda", "..", "a/../../outside/victim.sda", "../../etc/passwd"]
    for number, path in enumerate(evil):
        data["models"][f"evil{number}"] = {**example, "model_id": f"evil{number}", "file_path": path}
    index.write_text(json.dumps(data))
    access = victim.stat().st_atime_ns
    mark = daemon.mark()
    daemon.start()
    told = daemon.wait_for("library.entry_foreign", count=len(evil), after=mark)
    assert {event["file"] for event in told} == set(evil)
    assert len(daemon.models()) == 2
    assert daemon.stop() == 0
    assert json.loads(index.read_bytes())["models"].keys() == data["models"].keys(), "they are for a person to remove"
    assert not daemon.events("library.entry_removed")
    listed = json.loads(daemon.cli("models", "list", "--json").stdout)
    assert len(listed["models"] if isinstance(listed, dict) else listed) == 2
    assert daemon.cli("models", "repair", "--yes").returncode == 0
    assert len(json.loads(index.read_bytes())["models"]) == 2
    from sda_daemon.models import delete_model

    index.write_text(json.dumps(data))
    for number in range(len(evil)):
        assert delete_model(f"evil{number}", daemon.models_dir)
    assert victim.exists()
    assert (daemon.models_dir / "link.sda").is_symlink()
    assert victim.stat().st_atime_ns == access
