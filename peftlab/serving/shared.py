"""Several adapters in one encoder: each for rows of its own in one batch, or all on one input.

The backbone is there once. What it shares runs on the whole batch; where adapters stand, each runs
on its rows: that is done by :mod:`peftlab.serving.switches`. Trained checkpoints run here; nothing
trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab import checkpoints, methods
from peftlab.encoders import Encoder, Slot, load_encoder
from peftlab.errors import CheckpointError, DataError, SettingsError, unknown
from peftlab.methods import sites
from peftlab.models import INPUTS
from peftlab.serving.single import Batch, Single, inside
from peftlab.serving.switches import EmbeddingSwitch, Groups, Switch
from peftlab.tasks import heads
from peftlab.tasks.decoder import LanguageModelHead

Folder = str | Path


class Several(nn.Module):
    """One encoder with several trained adapters, each with its head.

    Works with every method that only adds parts. The rows of a batch are sorted by adapter. A
    module of the backbone where an adapter has a part runs once for each adapter on its rows, all
    other modules once on all rows; so results are those of the single models. An attention with
    prefixes is one such module: each adapter has prefixes of its own length there. Prompts of
    different lengths are filled up with masked positions. (The averages of gates that count padding
    too, ``gate="all"``, count these.)

    Not safe to call from two threads at once. Made by :func:`several`. Taught in the chapter on
    fusion.

    Attributes:
        encoder: The encoder; its backbone carries a :class:`Switch` wherever an adapter has parts.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if encoder.in_use or next(sites.find(encoder.backbone), None) is not None:
            raise SettingsError(
                f"The encoder {encoder.name!r} carries a method already: load it again."
            )
        encoder.in_use = True
        encoder.backbone.requires_grad_(False)
        self.encoder = encoder
        self.backbone: nn.Module = encoder.backbone
        self.singles = nn.ModuleList()
        self._index: dict[str, Single] = {}
        self._groups = Groups()
        self._switched: list[tuple[Slot, nn.Module]] = []
        self.eval()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the adapters, in the order in which they came."""
        return tuple(self._index)

    def __getitem__(self, name: str) -> Single:
        """Return one adapter, which runs alone as ``several[name](batch)``.

        Raises:
            UnknownNameError: There is none of that name.
        """
        if name not in self._index:
            raise unknown("adapter in this encoder", name, self._index)
        return self._index[name]

    def add(self, name: str, folder: Folder) -> None:
        """Add a trained adapter with its head.

        Args:
            name: What rows will call it.
            folder: A checkpoint that :meth:`peftlab.models.Model.save` wrote.

        Raises:
            CheckpointError: It is damaged or of another encoder, has several heads or one that
                decodes words, or changes weights of the backbone.
            SettingsError: There is an adapter of that name.
        """
        if name in self._index:
            raise SettingsError(f"There is already an adapter {name!r}: remove it first.")
        header, tensors = checkpoints.read(folder)
        if header["encoder"]["fingerprint"] != self.encoder.fingerprint:
            raise CheckpointError(
                f"The checkpoint {folder} was made with other weights of "
                f"{header['encoder']['name']!r} than those of the encoder {self.encoder.name!r} "
                "here: put adapters of one encoder together."
            )
        if "of" in header["task"]:
            raise CheckpointError(
                f"The checkpoint {folder} has heads for several tasks: an adapter here has one; "
                "train it on a single task, or serve that model by itself."
            )
        if header["head"]["kind"] == LanguageModelHead.kind:
            raise CheckpointError(
                f"The checkpoint {folder} is a language model, whose head decodes with the word "
                "vectors of the encoder: an adapter here has a head of its own; serve that model "
                "by itself."
            )
        try:
            self._index[name] = self._made(header, tensors, folder)
        finally:
            self._arrange()

    def remove(self, name: str) -> None:
        """Take an adapter with its head away.

        Raises:
            UnknownNameError: There is none of that name.
        """
        _ = self[name]
        del self._index[name]
        self._arrange()

    def forward(self, batch: Batch, names: Sequence[str]) -> list[Tensor]:
        """Run a batch with a different adapter for each row.

        Args:
            batch: ``input_ids`` and ``attention_mask`` [batch, length], ``token_type_ids`` where
                the tokenizer makes them; for choices also ``num_choices``.
            names: The adapter of every row (of every example, where it has several choices).

        Returns:
            The logits of every row in order; their shapes are those of the heads, without the
            dimension of the batch.

        Raises:
            DataError: There is not one name for each row.
            UnknownNameError: There is no adapter of that name.
        """
        count = batch.get("num_choices", 1)
        total = len(batch["input_ids"]) // count
        if len(names) != total:
            raise DataError(
                f"There are {len(names)} names for {total} rows: name one adapter for each row."
            )
        used = {name: self[name] for name in dict.fromkeys(names)}
        rank = {name: k for k, name in enumerate(used)}
        order = sorted(range(total), key=lambda i: rank[names[i]])
        rows = torch.tensor([i * count + c for i in order for c in range(count)])
        rows = rows.to(batch["input_ids"].device)
        ready = {key: batch[key][rows] for key in INPUTS if key in batch}
        groups, start = [], 0
        for name in used:
            stop = start + count * list(names).count(name)
            groups.append((name, slice(start, stop)))
            start = stop
        hidden = self._states(ready, Groups(groups, max(s.extra for s in used.values())))
        found = []
        for name, own in groups:
            part = dict(batch) | {key: value[own] for key, value in ready.items()}
            found += list(used[name].head(hidden[own], part))
        return [logits for _, logits in sorted(zip(order, found, strict=True), key=lambda p: p[0])]

    def parallel(self, batch: Batch) -> dict[str, Tensor]:
        """Run all adapters on one input, as one batch of as many copies.

        Args:
            batch: As in :meth:`forward`.

        Returns:
            The logits by adapter, as the single model's.
        """
        copies = {k: batch[k].repeat(len(self.names), 1) for k in INPUTS if k in batch}
        total = len(batch["input_ids"]) // batch.get("num_choices", 1)
        logits = self(dict(batch) | copies, [name for name in self.names for _ in range(total)])
        return {
            name: torch.stack(logits[k * total : (k + 1) * total])
            for k, name in enumerate(self.names)
        }

    def _states(self, inputs: dict[str, Tensor], groups: Groups) -> Tensor:
        """Return the states [batch, length, d] of rows that are sorted by adapter."""
        longest = groups.extra
        if longest:
            mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
            inputs = {key: F.pad(value, (longest, 0)) for key, value in inputs.items()}
            inputs["attention_mask"] = F.pad(mask, (longest, 0))
            for name, rows in groups.rows:
                inputs["attention_mask"][rows, longest - self[name].extra : longest] = 1
        for name, _ in groups.rows:
            single = self[name]
            for decide in single.hooked(single.backbone._forward_pre_hooks):
                decide(single.backbone, (), inputs)
        self._groups.rows, self._groups.extra = groups.rows, longest
        try:
            return cast(Tensor, self.backbone(**inputs).last_hidden_state[:, longest:])
        finally:
            self._groups.rows, self._groups.extra = [], 0

    def _made(self, header: dict[str, Any], tensors: dict[str, Tensor], folder: Folder) -> Single:
        """Build one adapter beside the shared backbone and give it its weights."""
        self._restore()
        twin = self.encoder.twin()
        method = methods.get(header["method"])
        with torch.random.fork_rng(devices=[]):
            method.attach(twin)
            head = heads.build(header["head"])
        parts = dict(sites.parts(twin.backbone))
        own = {id(p) for part in parts.values() for p in part.parameters()}
        changed = [p for p in self.backbone.parameters() if p.requires_grad and id(p) not in own]
        self.backbone.requires_grad_(False)
        if changed:
            raise CheckpointError(
                f"The checkpoint {folder} is of the method {method.name!r}, which changes weights "
                "of the encoder that the other adapters share: serve it as a model of its own."
            )
        weight = next(self.backbone.parameters())
        single = Single(
            twin, method, head.to(weight.device, weight.dtype), header["task"]["labels"]
        )
        if single.hooked(twin.backbone._forward_hooks):
            raise CheckpointError(
                f"The checkpoint {folder} is of the method {method.name!r}, which changes what the "
                "whole encoder returns: serve it as a model of its own."
            )
        live = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
        for path, part in parts.items():
            live |= {f"backbone.{path}.{name}": t for name, t in part.state_dict().items()}
        checkpoints.fill(live, tensors, folder)
        return single.eval()

    def _restore(self) -> None:
        """Make the shared backbone a bare one."""
        for slot, original in self._switched:
            slot.set(original)
        self._switched = []
        self.encoder.release()

    def _arrange(self) -> None:
        """Put a switch wherever an adapter has parts, and leave the tokens room for all prompts."""
        self._restore()
        self.singles = nn.ModuleList(self._index.values())
        self.encoder.reserve(max((s.reserved for s in self._index.values()), default=0))
        paths = {path for single in self._index.values() for path in single.places()}
        for path in paths:
            if not inside(path, paths):
                parent, _, name = path.rpartition(".")
                slot = Slot(self.backbone.get_submodule(parent), name)
                original = slot.get()
                versions = {name: single.version(path) for name, single in self._index.items()}
                own = {name: module for name, module in versions.items() if module is not None}
                kind = EmbeddingSwitch if slot == self.encoder.anatomy.embeddings else Switch
                slot.set(kind(original, own, self._groups).eval())
                self._switched.append((slot, original))


def several(encoder: str | Encoder, folders: Mapping[str, Folder]) -> Several:
    """Put several trained adapters, each with its head, into one encoder.

    Args:
        encoder: The one that all of them were trained with: a name, or one that is not in use.
        folders: Name of each adapter → its checkpoint.

    Returns:
        The adapters, ready for :meth:`Several.forward` and :meth:`Several.parallel`.

    Raises:
        CheckpointError: See :meth:`Several.add`.
        SettingsError: The encoder carries a method already.
    """
    together = Several(load_encoder(encoder) if isinstance(encoder, str) else encoder)
    for name, folder in folders.items():
        together.add(name, folder)
    return together
