"""`make demo`: trains a small model on a few sounds and lets a real daemon make a library of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CONFIG = """\
models_dir: models
state_dir: state
models_format: distill
watch:
  - path: runs
metadata:
  description: "Epoch {{ epoch }}, validation loss {{ '%.3f' | format(val_loss) }}"
  tags: ["demo", "{{ training.preset }}"]
  dataset_file_count: "{{ sidecar.files | default(24) }}"
logging:
  format: console
"""
DAEMON_DEADLINE_S = 60.0


def main() -> int:
    """Run the demonstration in a temporary folder; return 0 if every step worked."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sda-daemon-demo-") as name:
        base = Path(name)
        (base / "runs").mkdir()
        (base / "config.yaml").write_text(CONFIG)
        checkpoint = base / "checkpoint_epoch0019.pt"
        train_and_save(checkpoint)
        watch_it_convert(base, checkpoint)
        play_with_it(base / "models")
    say(f"\nAll of it took {time.monotonic() - began:.0f} s; the temporary folder is gone again.")
    say("Next: put your own folders into config/sda-daemon.yaml and run `make run`.")
    return 0


def say(text: str) -> None:
    """Print at once, so that the daemon's own lines come in order."""
    print(text, flush=True)


def train_and_save(path: Path) -> None:
    """Make sounds, train on them, analyse the latent space, write a checkpoint like the training application's."""
    say("1. Training a small model on 24 synthetic sounds (a real training would take hours) ...")
    import torch

    from sda_daemon.audio.spectrogram import AudioSpectrogram, SpectrogramConfig
    from sda_daemon.demo.checkpoints import checkpoint_dict, write_checkpoint
    from sda_daemon.demo.sounds import make_sounds
    from sda_daemon.demo.training import analyse, train

    config = SpectrogramConfig(sample_rate=16_000, n_fft=1024, hop_length=256, n_mels=64)
    sounds = make_sounds(24, config.sample_rate, 1.0)
    mels = AudioSpectrogram(config).waveform_to_mel(sounds)

    def tell(epoch: int, train_loss: float, val_loss: float) -> None:
        if epoch % 5 == 4:
            say(f"   epoch {epoch:2}: training loss {train_loss:7.3f}, validation loss {val_loss:7.3f}")

    training = train(mels, latent_dim=16, epochs=20, on_epoch=tell)
    analysis = analyse(training.model, mels)
    content = checkpoint_dict(
        training.model.state_dict(),
        epoch=19,
        train_loss=training.train_loss,
        val_loss=training.val_loss,
        kl_weight=training.kl_weight,
        latent_dim=16,
        spectrogram=config,
        analysis=analysis,
        optimizer_state=training.optimizer.state_dict(),
        scheduler_state=training.scheduler.state_dict(),
        epoch_metrics=training.epochs,
    )
    write_checkpoint(path, content)
    size = path.stat().st_size / 1e6
    say(f"   wrote {path.name}: {size:.1f} MB with optimizer state, {analysis.n_active_components} sliders found")
    torch.set_num_threads(1)


def watch_it_convert(base: Path, checkpoint: Path) -> None:
    """Start the daemon, drop the checkpoint into the watched folder, show its events, stop it."""
    say("\n2. Starting the daemon and dropping the checkpoint into runs/plucks/checkpoints; its events:")
    command = [sys.executable, "-m", "sda_daemon", "run", "--config", str(base / "config.yaml")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as daemon:
        try:
            lines = _shown_lines(daemon, base)
            _read_until(lines, "rescan.finished")
            target = base / "runs" / "plucks" / "checkpoints"
            target.mkdir(parents=True)
            for source in (checkpoint, checkpoint.with_name(checkpoint.name + ".meta.json")):
                (target / source.name).write_bytes(source.read_bytes())
            _read_until(lines, "conversion.succeeded")
            daemon.send_signal(signal.SIGTERM)
            for _ in lines:
                pass
        finally:
            if daemon.poll() is None:
                daemon.kill()
    if daemon.returncode != 0:
        raise SystemExit(f"the daemon ended with exit code {daemon.returncode}")
    say("\n3. The library:")
    subprocess.run(
        [sys.executable, "-m", "sda_daemon", "models", "list", "--models-dir", str(base / "models")], check=True
    )


def _shown_lines(daemon: subprocess.Popen[str], base: Path) -> Iterator[str]:
    """Yield the daemon's lines, printing each; its folder is left out, to be easier on the eye."""
    assert daemon.stderr is not None
    for line in daemon.stderr:
        say("   " + line.rstrip().replace(f"{base}/", ""))
        yield line


def _read_until(lines: Iterator[str], event: str) -> None:
    deadline = time.monotonic() + DAEMON_DEADLINE_S
    for line in lines:
        if event in line:
            return
        if "conversion.failed" in line or time.monotonic() > deadline:
            break
    raise SystemExit(f"the daemon never logged {event}")


def play_with_it(models_dir: Path) -> None:
    """Load the model, move a slider, decode to a mel spectrogram and to sound."""
    import torch

    from sda_daemon.controls import describe_sliders, sliders_to_latent
    from sda_daemon.library import ModelLibrary
    from sda_daemon.models import load_model

    (entry,) = ModelLibrary(models_dir).list_all()
    loaded = load_model(models_dir / entry.file_path)
    assert loaded.analysis is not None
    slider = describe_sliders(loaded.analysis)[0]
    say(f"\n4. Loading {entry.file_path} and moving its first slider, {slider.label!r} ({slider.minimum} to "
        f"{slider.maximum}, safe from {slider.safe[0]} to {slider.safe[1]}):")  # fmt: skip
    for position in (slider.safe[0], 0, slider.safe[1]):
        latent = torch.from_numpy(sliders_to_latent([position], loaded.analysis)).float().unsqueeze(0)
        with torch.no_grad():
            mel = loaded.model.decode(latent, target_shape=loaded.model.mel_shape)
        bands = mel[0, 0].mean(dim=1)
        say(f"   at {position:+3}: mel spectrogram {tuple(mel.shape[2:])}, low to high bands {_bar(bands)}")
    sound = loaded.spectrogram.mel_to_waveform(mel)
    seconds = sound.shape[-1] / loaded.spectrogram.config.sample_rate
    say(f"   and as sound: {sound.shape[-1]} samples, {seconds:.2f} s")


def _bar(bands: object, width: int = 32) -> str:
    """Draw the mean of each band as a line of blocks."""
    import torch

    assert isinstance(bands, torch.Tensor)
    groups = bands.reshape(width, -1).mean(dim=1)
    scaled = (groups / groups.max().clamp(min=1e-9) * 8).round().int().tolist()
    return "".join(" ▁▂▃▄▅▆▇█"[max(0, min(8, level))] for level in scaled)


if __name__ == "__main__":
    sys.exit(main())
