"""Twenty minutes of random trouble, then an audit: every checkpoint accounted for, the index equal to the folder.

`python -m benchmarks.soak [MINUTES] [SEED]`. Exits 0 if the audit finds nothing.
"""

from __future__ import annotations

import collections
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.table import print_table
from sda_daemon.demo.checkpoints import checkpoint_dict, small_model, write_checkpoint
from sda_daemon.models.checkpoint import read_checkpoint
from sda_daemon.models.digest import model_id_of, weights_digest
from sda_daemon.models.header import read_model_header
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.policy import Status

RUNS = 8
QUIET_S = 20.0
"""The audit begins after so long without an event."""
QUIET_LIMIT_S = 600.0
CUT_OFF_AT_BIRTH = re.compile(
    r"Traceback .*\n(?:  .*\n)*  .*preparation_data = .*\n(?:  .*\n)*"
    r"(?:EOFError: Ran out of input|_pickle.UnpicklingError: pickle data was truncated)\n"
)
"""Said by a process that was just being started as a worker when its daemon was killed, before any of our code runs."""


class Soak:
    """One run of random trouble on folders of its own."""

    def __init__(self, base: Path, chance: random.Random) -> None:
        self.base = base
        self.chance = chance
        self.drop, self.models_dir, self.log = base / "drop", base / "models", base / "log"
        self.drop.mkdir()
        self.config = base / "config.yaml"
        self.expected: dict[str, str] = {}  # model id to the checkpoint it was first dropped as
        self.deleted: set[str] = set()
        self.overwritten: set[str] = set()  # replaced or deleted before anyone can know whether it was converted
        self.current: dict[Path, str] = {}
        self.halves: dict[Path, bytes] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.process: subprocess.Popen[bytes] | None = None
        self.damaged: set[Path] = set()
        self.weights = small_model(1).state_dict()
        self.variant = 0
        self.touch_config()

    # --- what happens -----------------------------------------------------------------------------

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "sda_daemon", "run", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def touch_config(self) -> None:
        text = json.dumps(
            {
                "models_dir": "models",
                "state_dir": "state",
                "watch": [{"path": "drop", "settle_s": 0.3, "incomplete_after_s": 5}],
                "rescan_interval_s": self.chance.choice([20, 30, 40]),
            }
        )
        temporary = self.config.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self.config)

    def new_content(self) -> tuple[bytes, str]:
        """Return the bytes of a checkpoint with new weights, and its model's id."""
        self.variant += 1
        self.weights["decoder.fc.weight"][0, 0] = self.variant
        path = write_checkpoint(self.base / "variant.pt", checkpoint_dict(self.weights), sidecar=False)
        return path.read_bytes(), model_id_of(weights_digest(read_checkpoint(path).state_dict))

    def any_path(self) -> Path:
        folder = self.drop / f"run{self.chance.randrange(RUNS)}" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"checkpoint_epoch{self.chance.randrange(10_000):04}.pt"

    def is_taken(self, path: Path) -> bool:
        return path in self.current or path in self.halves or path in self.damaged

    def put(self, path: Path, data: bytes) -> None:
        """Write a file in one of the ways in which files come."""
        way = self.chance.choice(["write", "rename", "slow"])
        if way == "rename":
            temporary = path.with_name(f".{path.name}.Xy12Zw")
            temporary.write_bytes(data)
            temporary.replace(path)
        else:
            with path.open("wb") as file:
                for start in range(0, len(data), 1_000_000):
                    file.write(data[start : start + 1_000_000])
                    file.flush()
                    if way == "slow":
                        time.sleep(0.1)

    def drop_new(self) -> None:
        path = self.any_path()
        if self.is_taken(path):
            return
        data, model_id = self.new_content()
        self.put(path, data)
        self.expected[model_id] = str(path)
        self.current[path] = model_id

    def drop_duplicate(self) -> None:
        path = self.any_path()
        if not self.current or self.is_taken(path):
            return
        source = self.chance.choice(list(self.current))
        shutil.copyfile(source, path)
        self.current[path] = self.current[source]

    def replace(self) -> None:
        if self.current:
            path = self.chance.choice(list(self.current))
            data, model_id = self.new_content()
            self.overwritten.add(self.current[path])
            self.put(path, data)
            self.expected[model_id] = str(path)
            self.current[path] = model_id

    def delete_source(self) -> None:
        if self.current:
            path = self.chance.choice(list(self.current))
            self.overwritten.add(self.current.pop(path))
            path.unlink()

    def drop_half(self) -> None:
        path = self.any_path()
        if not self.is_taken(path):
            data, _ = self.new_content()
            path.write_bytes(data[: len(data) // 2])
            self.halves[path] = data

    def finish_half(self) -> None:
        if self.halves:
            path, data = self.halves.popitem()
            with path.open("ab") as file:
                file.write(data[len(data) // 2 :])
            model_id = model_id_of(weights_digest(read_checkpoint(path).state_dict))
            self.expected[model_id] = str(path)
            self.current[path] = model_id

    def drop_junk(self) -> None:
        self.any_path().with_suffix(".ckpt").write_bytes(self.chance.randbytes(5000))

    def drop_damaged(self) -> None:
        """One bit of a weight has flipped on the way."""
        path = self.any_path()
        if not self.is_taken(path):
            data = bytearray(self.new_content()[0])
            data[data.index(self.weights["decoder.fc.weight"].numpy()[1].tobytes())] ^= 1
            self.put(path, bytes(data))
            self.damaged.add(path)

    def delete_model(self) -> None:
        models = list(self.models_dir.glob("*.sda"))
        if models:
            path = self.chance.choice(models)
            self.deleted.add(read_model_header(path).metadata.model_id)
            path.unlink(missing_ok=True)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.start()

    def stop_and_start(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait()
        was_up = f'"pid": {self.process.pid},' in self.log.read_text()
        if code != 0 and (was_up or code != -signal.SIGTERM):  # a stop may come before Python could hear of it
            raise SystemExit(f"the daemon stopped with exit code {code}; see {self.log}")
        self.start()

    def break_index(self) -> None:
        index = self.models_dir / "model_library.json"
        if index.exists():
            index.write_bytes(index.read_bytes()[: self.chance.randrange(200)])

    def step(self) -> None:
        """Do one random thing."""
        weights = {
            self.drop_new: 30,
            self.drop_duplicate: 6,
            self.replace: 8,
            self.delete_source: 8,
            self.drop_half: 4,
            self.finish_half: 4,
            self.drop_junk: 2,
            self.drop_damaged: 2,
            self.delete_model: 2,
            self.touch_config: 4,
            self.kill: 3,
            self.stop_and_start: 1,
            self.break_index: 1,
        }
        action = self.chance.choices(list(weights), list(weights.values()))[0]
        self.counts[action.__name__] += 1
        action()

    # --- the audit --------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything come to its end."""
        while self.halves:
            self.finish_half()
        last, since, began = -1, time.monotonic(), time.monotonic()
        while time.monotonic() - since < QUIET_S and time.monotonic() - began < QUIET_LIMIT_S:
            size = self.log.stat().st_size
            if size != last:
                last, since = size, time.monotonic()
            time.sleep(0.5)

    def audit(self) -> list[str]:
        """Return everything that is not as it must be."""
        wrong: list[str] = []
        index: dict[str, dict[str, Any]] = json.loads((self.models_dir / "model_library.json").read_bytes())["models"]
        files = {path.name: path.stat().st_size for path in self.models_dir.glob("*.sda")}
        if {entry["file_path"]: entry["file_size_bytes"] for entry in index.values()} != files:
            wrong.append("the index is not equal to the folder")
        inside = collections.Counter(read_model_header(self.models_dir / name).metadata.model_id for name in files)
        wrong += [f"model {model_id} is there {count} times" for model_id, count in inside.items() if count > 1]
        wrong += [f"model {model_id} was never dropped" for model_id in index if model_id not in self.expected]
        excused = self.deleted | self.overwritten
        for model_id, path in self.expected.items():
            if model_id not in index and model_id not in excused:
                wrong.append(f"no model of {path}")
        ledger = Ledger(self.base / "state")
        for checkpoint in self.drop.rglob("*"):
            if checkpoint.suffix in (".pt", ".ckpt") and not checkpoint.name.startswith("."):
                row = ledger.get(str(checkpoint))
                done = row is not None and row.status in (Status.DONE, Status.DUPLICATE, Status.REFUSED)
                if not done:
                    wrong.append(f"{checkpoint} is not accounted for: {row and row.status}")
                elif checkpoint in self.damaged and row is not None and row.status is not Status.REFUSED:
                    wrong.append(f"{checkpoint} is damaged, but {row.status}")
        ledger.close()
        wrong += [f"left over: {path.name}" for path in self.models_dir.iterdir() if path.name.endswith(".tmp")]
        lines = CUT_OFF_AT_BIRTH.sub("", self.log.read_text()).splitlines()
        wrong += [line for line in lines if "daemon.crashed" in line or "Traceback" in line]
        return wrong


def main() -> int:
    """Run it and print what happened."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print(f"{minutes:g} minutes of random trouble, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sda-daemon-soak-") as name:
        soak = Soak(Path(name), random.Random(seed))
        soak.start()
        end = time.monotonic() + minutes * 60
        tell_at = time.monotonic() + 60
        while time.monotonic() < end:
            soak.step()
            time.sleep(soak.chance.expovariate(2.0))
            if time.monotonic() > tell_at:
                tell_at += 60
                print(f"  {sum(soak.counts.values())} steps, {len(soak.expected)} different models", flush=True)
        soak.settle()
        assert soak.process is not None
        soak.process.send_signal(signal.SIGTERM)
        code = soak.process.wait()
        wrong = soak.audit() + ([f"exit code {code}"] if code else [])
        events = collections.Counter(
            json.loads(line)["event"] for line in soak.log.read_text().splitlines() if line.startswith("{")
        )
        print_table("What was done", ["step", "times"], sorted(soak.counts.items()))
        print_table("What the daemon logged", ["event", "times"], sorted(events.items()))
        if wrong:
            shutil.copyfile(soak.log, "soak-failed.log")
    print("\nThe audit found nothing wrong." if not wrong else "\nThe audit found:\n  " + "\n  ".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
