"""An encoder in memory: a backbone with its tokenizer, its anatomy and its fingerprint."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch

from peftlab.encoders.anatomy import describe
from peftlab.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["cls", "mean"]


class Encoder:
    """A backbone with its tokenizer and anatomy.

    Attributes:
        name: How it was asked for: hub id, folder or ``pocket``.
        backbone: The Hugging Face model without a pooler: ids [batch, length] → states
            [batch, length, d].
        tokenizer: The fast tokenizer that belongs to it.
        anatomy: Where its layers keep their parts.
        pooling: How the encoder was trained to form a sentence vector: ``"cls"`` or ``"mean"``.
        random_weights: Whether the weights were drawn instead of loaded.
        source: Folder or hub id that the weights were loaded from; None if they were not.
        in_use: Whether a model was made of it, whose method may train its weights.
        reserved: Positions that :meth:`reserve` has taken away from the tokens.
    """

    def __init__(
        self,
        name: str,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        pooling: Pooling = "cls",
        *,
        random_weights: bool = False,
        source: str | None = None,
    ) -> None:
        self.name = name
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.random_weights = random_weights
        self.source = source
        self.in_use = False
        self.anatomy = describe(backbone)
        self.reserved = 0
        self._shorten()  # many tokenizers do not know how much their model takes
        _ = self.fingerprint  # taken now, before any method or training touches the weights

    def reserve(self, positions: int) -> None:
        """Take positions away from the tokens, for what a method puts before them.

        Raises:
            SettingsError: Fewer than three would be left: two special tokens and one word.
        """
        if self.anatomy.max_length - self.reserved - positions < 3:
            raise SettingsError(
                f"{positions} vectors before the tokens leave no room for a text: the encoder "
                f"{self.name!r} has {self.anatomy.max_length} positions; take fewer vectors."
            )
        if self.tokenizer is not None and not self.reserved:
            self._longest = self.tokenizer.model_max_length  # for release()
        self.reserved += positions
        self._shorten()

    def release(self) -> None:
        """Give the tokens all reserved positions back."""
        if self.tokenizer is not None and self.reserved:
            self.tokenizer.model_max_length = self._longest
        self.reserved = 0

    def _shorten(self) -> None:
        """Let the tokenizer know how many positions are there for tokens."""
        if self.tokenizer is not None:
            longest = self.anatomy.max_length - self.reserved
            self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, longest)

    def twin(self) -> Encoder:
        """Return a copy of the module tree that shares every tensor, and the configuration.

        What is put between its modules, or hooked to them, is its own, and so is what its tokenizer
        takes.
        """
        twin = copy.copy(self)
        twin.tokenizer = copy.copy(self.tokenizer)
        shared = [*self.backbone.parameters(), *self.backbone.buffers(), self.backbone.config]
        twin.backbone = copy.deepcopy(self.backbone, {id(t): t for t in shared})
        twin.anatomy = describe(twin.backbone)
        twin.in_use = False
        return twin

    def recompute(self) -> None:
        """Keep no activations of the layers: the backward pass computes them again.

        Also called gradient checkpointing. It is on in training mode only.
        """
        backbone: Any = self.backbone
        backbone.config.use_cache = (
            False  # a cache is what decoders keep, and would be warned about
        )
        # newer releases of transformers 5 have another name for it
        enable = getattr(backbone, "activation_checkpointing_enable", None)
        enable = enable or backbone.gradient_checkpointing_enable
        # the older, reentrant kind gives no gradients where the embeddings are frozen
        enable({"use_reentrant": False})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the weights as loaded: names, shapes, types and values.

        Two encoders of one configuration and one fingerprint give the same hidden states. It is
        what a checkpoint remembers of its backbone.
        """
        digest = hashlib.sha256()
        state = self.backbone.state_dict()
        for name in _order(state):
            tensor = state[name]
            if tensor.is_meta:
                return "meta"
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_view_bytes(tensor))
        return digest.hexdigest()


def _order(names: Iterable[str]) -> list[str]:
    """Return the names of weights as BERT has them: the positions behind the word vectors.

    For RoBERTa and its kin releases of transformers differ in where they put the positions.
    """
    order = list(names)
    for late in [name for name in order if "position_embeddings" in name]:
        words = late.replace("position_embeddings", "word_embeddings")
        if words in order:
            order.remove(late)
            order.insert(order.index(words) + 1, late)
    return order


def _view_bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def encoder_from(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    name: str = "custom",
    pooling: Pooling = "cls",
) -> Encoder:
    """Wrap a Hugging Face backbone that is already in memory.

    Args:
        backbone: A model with BERT's layer structure.
        tokenizer: Its fast tokenizer; ``None`` where only ready-made ids are used.
        name: How summaries and records shall call it.
        pooling: How a sentence vector is formed.

    Returns:
        The encoder; it shares the backbone, no copy is made.
    """
    return Encoder(name, backbone, tokenizer, pooling)
