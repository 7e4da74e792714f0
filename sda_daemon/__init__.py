"""sda-daemon: turns the checkpoints of small audio models into a library of finished models.

The public API lives in the subpackages: `sda_daemon.library` (index, search), `sda_daemon.models`
(save, load, delete, convert), `sda_daemon.audio.spectrogram` and `sda_daemon.controls`.
"""

__version__ = "0.1.0"
