"""Checkpoints: our own, those of ``adapters`` and ``peft``, and several made into one model."""

from peftlab.checkpoints.format import digest, fill, read
from peftlab.checkpoints.joining import average, fuse
from peftlab.checkpoints.languages import load_task_adapter, swap_language
from peftlab.checkpoints.loading import load, restore
from peftlab.checkpoints.saving import Format, save
from peftlab.checkpoints.starting import start

__all__ = [
    "Format",
    "average",
    "digest",
    "fill",
    "fuse",
    "load",
    "load_task_adapter",
    "read",
    "restore",
    "save",
    "start",
    "swap_language",
]
