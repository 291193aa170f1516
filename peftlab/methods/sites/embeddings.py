"""The place behind the embeddings: vectors that no token has, and maps of all tokens' vectors."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.encoders import Encoder
from peftlab.methods.sites.site import Site, hook


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
            vectors = self.original(inputs_embeds=torch.cat([soft, words], 1), token_type_ids=types)
        else:
            vectors = self.original(input_ids=ids, token_type_ids=types)
        for part in self.states.values():
            vectors = part(vectors)
        return torch.cat([*(part(vectors) for part in self.prompts.values()), vectors], 1)

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
        """Cut the states of what is no token off the backbone's output."""
        output.last_hidden_state = output.last_hidden_state[:, self.extra :]
        return output


def embedding_site(encoder: Encoder) -> EmbeddingSite:
    """Return the site around the embeddings, made now if there is none yet."""
    slot = encoder.anatomy.embeddings
    module = slot.get()
    if not isinstance(module, EmbeddingSite):
        config: Any = encoder.backbone.config
        module = EmbeddingSite(module, fill=config.pad_token_id or 0)
        slot.set(module.train(module.original.training))
        hook(encoder.backbone, before=module.lengthen, after=module.shorten)
    return module
