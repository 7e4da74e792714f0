"""The library of models: the index beside the model files. Never imports torch."""

from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry

__all__ = ["ModelEntry", "ModelLibrary"]
