"""peftlab: parameter-efficient fine-tuning of language encoders, exactly and measured.

The public names are loaded when they are first used, so that ``import peftlab`` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "task": "peftlab.tasks",
    "model": "peftlab.models",
    "summary": "peftlab.models",
    "train": "peftlab.training",
    "evaluate": "peftlab.training",
    "TrainSettings": "peftlab.training",
    "load": "peftlab.checkpoints",
    "fuse": "peftlab.joining",
    "average": "peftlab.joining",
    "several": "peftlab.serving",
    "load_encoder": "peftlab.encoders",
    "PeftlabError": "peftlab.errors",
}

if TYPE_CHECKING:
    from peftlab.checkpoints import load
    from peftlab.encoders import load_encoder
    from peftlab.errors import PeftlabError
    from peftlab.joining import average, fuse
    from peftlab.methods.bottleneck import Adapter
    from peftlab.methods.finetuning import Full, HeadOnly, TopLayers
    from peftlab.methods.fusion import AdapterFusion
    from peftlab.methods.lora import LoRA
    from peftlab.models import model, summary
    from peftlab.serving import several
    from peftlab.tasks import task
    from peftlab.training import TrainSettings, evaluate, train

__all__ = [
    "Adapter",
    "AdapterFusion",
    "Full",
    "HeadOnly",
    "LoRA",
    "PeftlabError",
    "TopLayers",
    "TrainSettings",
    "average",
    "evaluate",
    "fuse",
    "load",
    "load_encoder",
    "model",
    "several",
    "summary",
    "task",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use; the settings class of every method is one."""
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    else:
        classes = import_module("peftlab.methods").classes()
        by_class = {cls.__name__: cls for cls in classes.values()}
        if name.startswith("_") or name not in by_class:
            raise AttributeError(f"module 'peftlab' has no attribute {name!r}")
        value = by_class[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
