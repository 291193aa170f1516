"""The place behind the embeddings: vectors that no token has, and maps of all tokens' vectors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.encoders import Encoder
from peftlab.methods.sites.site import Site, hook

if TYPE_CHECKING:
    from peftlab.methods.work import States, Tape


class EmbeddingSite(Site):
    r"""The embeddings of the tokens, with parts.

    In this order: *words* parts give vectors [batch, p, d] that stand before the word vectors and
    then get positions and LayerNorm as words do; *states* parts map the embeddings of all tokens
    [batch, length, d]; *prompts* parts map them to vectors [batch, p, d] that stand before them.

    The sequence is longer inside the encoder by all these vectors. The mask is lengthened on the
    way in, and their states are cut off on the way out, so that heads and labels see the tokens
    they know.
    """

    def __init__(self, original: nn.Module, fill: int) -> None:
        super().__init__()
        self.original: Any = original
        self.fill = fill
        self.words = nn.ModuleDict()
        self.states = nn.ModuleDict()
        self.prompts = nn.ModuleDict()

    @property
    def extra(self) -> int:
        """How many vectors stand before the tokens."""
        parts = [*self.words.values(), *self.prompts.values()]
        return sum(cast(int, part.length) for part in parts)

    @property
    def word_embeddings(self) -> nn.Module:
        """The table of word vectors, where transformers looks for it."""
        return cast(nn.Module, self.original.word_embeddings)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        **others: Any,
    ) -> Tensor:
        """Map ids [batch, extra + length], whose first ones only hold a place, to vectors."""
        ids = input_ids[:, self.extra :]
        types = None if token_type_ids is None else token_type_ids[:, self.extra :]
        if self.words:
            words = self.original.word_embeddings(ids)
            soft = torch.cat([part(words) for part in self.words.values()], 1)
            if types is not None:
                types = F.pad(types, (soft.shape[1], 0))
            given = {"inputs_embeds": torch.cat([soft, words], 1)}
        else:
            given = {"input_ids": ids}
        vectors = self.original(**given, token_type_ids=types, position_ids=position_ids)
        for part in self.states.values():
            vectors = part(vectors)
        return torch.cat([*(part(vectors) for part in self.prompts.values()), vectors], 1)

    def inverse(self, vectors: Tensor) -> Tensor:
        """Undo the *states* parts that have an inverse, the last one first [..., d]."""
        for part in reversed(list(self.states.values())):
            if hasattr(part, "inverse"):
                vectors = cast(Any, part).inverse(vectors)
        return vectors

    def undone(self, tape: Tape, x: States) -> States:
        """Note the products of :meth:`inverse`."""
        for part in reversed(list(self.states.values())):
            if hasattr(part, "undone"):
                x = cast(Any, part).undone(tape, x)
        return x

    def lengthen(
        self, backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Make room before the tokens in what the backbone is called with."""
        given = dict(zip(("input_ids", "attention_mask", "token_type_ids"), args, strict=False))
        kwargs = given | kwargs
        for name, value in (("input_ids", self.fill), ("attention_mask", 1), ("token_type_ids", 0)):
            if kwargs.get(name) is not None:
                kwargs[name] = F.pad(kwargs[name], (self.extra, 0), value=value)
        return (), kwargs

    def shorten(self, backbone: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Cut the states of what is no token off the backbone's output.

        Attention weights keep it as keys, not as queries: [batch, heads, length, extra + length].
        """
        output.last_hidden_state = output.last_hidden_state[:, self.extra :]
        if output.get("hidden_states"):
            output.hidden_states = tuple(h[:, self.extra :] for h in output.hidden_states)
        if output.get("attentions"):
            output.attentions = tuple(a[:, :, self.extra :] for a in output.attentions)
        return output


def embedding_site(encoder: Encoder) -> EmbeddingSite:
    """Return the site around the embeddings, made now if there is none yet."""
    slot = encoder.anatomy.embeddings
    module = slot.get()
    if not isinstance(module, EmbeddingSite):
        config: Any = encoder.backbone.config
        # no padding, which transformers would warn about where no mask is given
        module = EmbeddingSite(module, fill=0 if config.pad_token_id else 1)
        slot.set(module.train(module.original.training))
        hook(encoder.backbone, before=module.lengthen, after=module.shorten)
    return module


def shift_positions(encoder: Encoder, by: int) -> None:
    """Let the positions of all tokens begin later, as if others stood before them.

    Raises:
        SettingsError: No position would be left for tokens.
    """
    encoder.reserve(by)
    embeddings: Any = encoder.anatomy.embeddings.get()
    if isinstance(embeddings, EmbeddingSite):
        embeddings = embeddings.original
    hook(encoder.backbone, before=partial(_shifted, by), module=embeddings.position_embeddings)


def _shifted(by: int, table: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Add to the ids of positions; RoBERTa's padding keeps its own."""
    (ids,) = args
    shifted = ids + by
    if table.padding_idx is not None:
        shifted = torch.where(ids == table.padding_idx, ids, shifted)
    return (shifted,), kwargs
