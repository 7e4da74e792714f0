"""Fixtures: real checkpoints, real samples where they are there, and a real daemon process."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

os.environ["SDA_DAEMON_STRICT_EVENTS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes are started here: they, and the next run, share what one of them has compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from tests.daemon_process import DaemonProcess
from tests.permissions import skip_for_others, summary_of

sys.dont_write_bytecode = False
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells have it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started here must hear Ctrl-C

hypothesis.settings.register_profile("slow machines", deadline=None)
hypothesis.settings.load_profile("slow machines")


SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process of a parallel run begin with its share of what is slow: in the end none waits for another.

    Each of them gets an even part of the list, in its order; what others have not come to is taken over later.
    """
    skip_for_others(items)
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    others = [item for item in items if item.get_closest_marker("slow") is None]
    ordered: list[pytest.Item] = []
    for number in range(processes):
        part = slow[number::processes]
        count = max(0, (len(items) - len(ordered)) // (processes - number) - len(part))
        ordered += part + others[:count]
        del others[:count]
    items[:] = ordered + others


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List at the end which tests were skipped because root, or an ordinary user, must run them."""
    terminalreporter.section("tests that not every user can run")
    for line in summary_of(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def small_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that returns the path of a small checkpoint with a seed's weights; each is made once."""
    folder = tmp_path_factory.mktemp("checkpoints")
    made: dict[tuple[int, bool], Path] = {}

    def make(seed: int = 0, *, with_analysis: bool = False) -> Path:
        from sda_daemon.demo.checkpoints import write_small_checkpoint

        key = (seed, with_analysis)
        if key not in made:
            path = folder / f"seed{seed}{'a' if with_analysis else ''}" / "checkpoint_epoch0007.pt"
            made[key] = write_small_checkpoint(path, seed, with_analysis=with_analysis, epoch=7)
        return made[key]

    return make


@pytest.fixture
def sample_runs() -> Path:
    """The folder of the real sample runs; skips where they are not there."""
    runs = SAMPLES / "runs"
    if not runs.is_dir():
        pytest.skip("the real sample checkpoints are not beside this repository")
    return runs


@pytest.fixture
def sample_models() -> list[Path]:
    """Models that the application's later generations wrote; none where the samples are not there."""
    return sorted(path for path in SAMPLES.glob("application/*/data/models/*.distill*"))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon on folders of its own: not started yet, killed afterwards."""
    process = DaemonProcess(tmp_path)
    yield process
    process.kill()


@pytest.fixture
def drop(small_checkpoints: Callable[..., Path]) -> Callable[..., Path]:
    """A function that copies a small checkpoint to a path, the way `cp` does."""

    def copy(target: Path, seed: int = 0, *, with_analysis: bool = False) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(small_checkpoints(seed, with_analysis=with_analysis), target)
        return target

    return copy


APPLICATION_MODELS = ("distill/data/models/warm_plucks.distill", "distillgan/data/models/c_model_2.distillgan")


@pytest.fixture(params=APPLICATION_MODELS, ids=["distill", "distillgan"])
def application_library(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A writable copy of a real library of a later generation, with the one model that is in it."""
    source = (SAMPLES / "application" / request.param).parent
    if not source.is_dir():
        pytest.skip("the real sample libraries are not beside this repository")
    folder = tmp_path / "models"
    folder.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder
