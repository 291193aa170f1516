"""A training step of each shared method against ``adapters`` and ``peft``: same weights, same work.

Both sides run in one process, in turns. The head, the optimiser and the batch are ours on both
sides, so that the method is what differs. Both must give the same loss before anything is timed.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from peftlab import methods
from peftlab.checkpoints.foreign import LIBRARIES
from peftlab.costs.step import Batch, Pass, build, random_batch
from peftlab.encoders import Encoder, shape
from peftlab.errors import TrainingError
from peftlab.methods.base import Library, Method
from peftlab.methods.prefix import Prefix
from peftlab.methods.prompt import Prompt
from peftlab.methods.unipelt import UniPELT
from peftlab.models import INPUTS, Model, Output
from peftlab.results.records.benches import Row
from peftlab.timing import cost, machine

SHAPE, BATCH, LENGTH = "minilm-l6", 8, 64
#: Largest relative difference of the two losses.
SAME = 1e-4
#: Presets whose defaults a library does not have, with the settings that it has.
VARIANTS: dict[Library, dict[str, Method]] = {
    "adapters": {"unipelt-flat": UniPELT(reparameterised=False, gate="all")},
    "peft": {
        "prefix-30": Prefix(prefix_length=30, shift_positions=True),
        "prompt-10": Prompt(prompt_length=10, place="before"),
    },
}
UNIT = "seconds a step, ours over theirs; less is better"


class Theirs(nn.Module):
    """A backbone of another library under our head; looks like a model to a step.

    Attributes:
        backbone: Its output has ``last_hidden_state`` [batch, length (+ prompt), d].
        prompts: Where vectors stand that are no token's: taken out before the head.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, prompts: slice) -> None:
        super().__init__()
        self.backbone, self.head, self.prompts = backbone, head, prompts

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, batch: Batch) -> Output:
        """Return logits and loss, as :class:`peftlab.models.Model` does."""
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        hidden: Tensor = self.backbone(**inputs).last_hidden_state
        if self.prompts.stop > self.prompts.start:
            before, behind = hidden[:, : self.prompts.start], hidden[:, self.prompts.stop :]
            hidden = torch.cat([before, behind], dim=1)
        head: Any = self.head
        logits = head(hidden, batch)
        return Output(logits, head.loss(logits, batch) if "labels" in batch else None)


def run(rounds: int = 30, device: str | None = None) -> list[Row]:
    """Measure every pair; about ten minutes on two cores.

    Args:
        rounds: At least so many steps of each side, in turns.
        device: By default the GPU where there is one.

    Returns:
        Our time over theirs for every method and library that is installed, with the 95 % interval.

    Raises:
        TrainingError: The two sides do not give the same loss.
        TimingError: Other processes use the GPU.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        machine.refuse_shared()
    encoder = shape(SHAPE, device)
    batch = random_batch(encoder, BATCH, LENGTH)
    pairs = [pair for library in LIBRARIES if find_spec(library) for pair in _pairs(library)]
    rows = []
    for label, method, library in tqdm(pairs, desc="bench step", disable=None):
        ours, theirs = both(encoder, method, library)
        _check_same(label, library, ours, theirs, batch)
        timed = cost(
            {"ours": Pass(ours, batch), "theirs": Pass(theirs, batch)},  # type: ignore[arg-type]
            baseline="theirs",
            min_rounds=rounds,
            min_seconds=1.0,
        )
        found = timed.ratio("ours")
        rows.append(Row(name=label, against=library, unit=UNIT, **found._asdict()))
    return rows


def _pairs(library: Library) -> list[tuple[str, Method, Library]]:
    """Return what a library has of the catalogue, flat, with settings that it has."""
    anatomy = shape(SHAPE).anatomy
    found: dict[str, Method] = {}
    for label, method in (methods.catalogue() | VARIANTS[library]).items():
        flat = method.flat
        if flat not in found.values() and flat.to_library(library, anatomy) is not None:
            found[label] = flat
    return [(label, method, library) for label, method in found.items()]


def both(encoder: Encoder, method: Method, library: Library) -> tuple[Model, Theirs]:
    """Build a method here and in another library, with the same weights.

    Args:
        encoder: Lends its tensors to both.
        method: One that the library has.
        library: ``"adapters"`` or ``"peft"``.
    """
    ours = build(encoder, method)
    bare: Any = copy.deepcopy(encoder.backbone)
    first = 1 if library == "adapters" else 0  # where it puts prompts: behind CLS, or before it
    prompts = slice(first, first + method.extra_tokens)
    with tempfile.TemporaryDirectory() as folder, quiet():
        ours.save(Path(folder), format=library)
        if library == "adapters":
            import adapters

            adapters.init(bare)
            bare.load_adapter(folder, use_safetensors=True)
            bare.train_adapter("default")
            backbone: nn.Module = bare
        else:
            import peft

            config = peft.PeftConfig.from_pretrained(folder)
            trainable = not config.is_prompt_learning
            backbone = peft.PeftModel.from_pretrained(bare, folder, is_trainable=trainable)
            if not trainable:  # what it loads of this kind is frozen
                backbone.get_submodule("prompt_encoder").requires_grad_(True)
    theirs = Theirs(backbone, copy.deepcopy(ours.head), prompts)
    return ours, theirs.to(ours.device)


def _check_same(label: str, library: str, ours: Model, theirs: Theirs, batch: Batch) -> None:
    with torch.no_grad():
        ours.eval()
        theirs.eval()
        one, other = float(ours(batch).loss), float(theirs(batch).loss)
    if abs(one - other) > SAME * abs(other):
        raise TrainingError(
            f"{label!r} gives the loss {one:.6f} here and {other:.6f} in {library}: what is timed "
            "would not be the same work; run the parity tests."
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the other libraries from reporting what they load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
