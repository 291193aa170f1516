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
    "add_task": "peftlab.models",
    "train": "peftlab.training",
    "evaluate": "peftlab.training",
    "TrainSettings": "peftlab.training",
    "MultiTask": "peftlab.tasks.multi",
    "load": "peftlab.checkpoints",
    "fuse": "peftlab.checkpoints",
    "average": "peftlab.checkpoints",
    "several": "peftlab.serving",
    "swap_language": "peftlab.checkpoints",
    "load_task_adapter": "peftlab.checkpoints",
    "load_encoder": "peftlab.encoders",
    "cost": "peftlab.timing",
    "PeftlabError": "peftlab.errors",
}

if TYPE_CHECKING:
    from peftlab.checkpoints import average, fuse, load, load_task_adapter, swap_language
    from peftlab.encoders import load_encoder
    from peftlab.errors import PeftlabError
    from peftlab.methods.adaptable import Adaptable
    from peftlab.methods.adapterdrop import AdapterDrop, RobustAdapterDrop
    from peftlab.methods.bottleneck import Adapter
    from peftlab.methods.compacter import Compacter
    from peftlab.methods.composition import Stack, Union
    from peftlab.methods.finetuning import Full, HeadOnly, TopLayers
    from peftlab.methods.focused import AdaptableFocused
    from peftlab.methods.fusion import AdapterFusion
    from peftlab.methods.ia3 import IA3
    from peftlab.methods.invertible import Invertible
    from peftlab.methods.lora import LoRA
    from peftlab.methods.madx import LanguageAdapter, TaskAdapter
    from peftlab.methods.prefix import Prefix
    from peftlab.methods.prompt import Prompt
    from peftlab.methods.unipelt import UniPELT
    from peftlab.methods.vectors import BitFit, LayerNormTuning
    from peftlab.models import add_task, model, summary
    from peftlab.serving import several
    from peftlab.tasks import task
    from peftlab.tasks.multi import MultiTask
    from peftlab.timing import cost
    from peftlab.training import TrainSettings, evaluate, train

__all__ = [
    "IA3",
    "Adaptable",
    "AdaptableFocused",
    "Adapter",
    "AdapterDrop",
    "AdapterFusion",
    "BitFit",
    "Compacter",
    "Full",
    "HeadOnly",
    "Invertible",
    "LanguageAdapter",
    "LayerNormTuning",
    "LoRA",
    "MultiTask",
    "PeftlabError",
    "Prefix",
    "Prompt",
    "RobustAdapterDrop",
    "Stack",
    "TaskAdapter",
    "TopLayers",
    "TrainSettings",
    "UniPELT",
    "Union",
    "add_task",
    "average",
    "cost",
    "evaluate",
    "fuse",
    "load",
    "load_encoder",
    "load_task_adapter",
    "model",
    "several",
    "summary",
    "swap_language",
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
