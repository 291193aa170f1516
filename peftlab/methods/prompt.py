"""Prompt tuning: trained vectors that stand before the tokens of a text.

They are read by every layer as tokens are, and are nobody's label. Vectors inside each layer's
attention are prefix tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Library, Method, Part
from peftlab.methods.checks import check_whole
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import embedding_site
from peftlab.methods.work import EMBEDDINGS, States

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch

Place = Literal["after", "before"]
Init = Literal["uniform", "vocabulary", "text"]


class PromptPart(Part):
    r"""The prompt: :math:`P \in R^{p \times d}`, the same for every text.

    Attributes:
        length: p.
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)
        self.length = len(vectors)

    def forward(self, x: Tensor) -> Tensor:
        """Return the prompt [batch, p, d] for texts with embeddings x [batch, length, d]."""
        return self.vectors.repeat(x.shape[0], 1, 1)


@register
@dataclass(frozen=True)
class Prompt(Method):
    r"""Prompt tuning: p trained vectors stand before the tokens.

    With the embeddings :math:`e_1 \ldots e_n \in R^d` of a text the first layer's input is

    .. math:: [P_1, \ldots, P_p, e_1, \ldots, e_n], \qquad P \in R^{p \times d}

    that is pd parameters in all. The encoder works on p + n vectors; the last layer's first p are
    cut off, so that heads and labels see the tokens they know, CLS first. Padding stays invisible
    to the prompt as to the tokens.

    Source: Lester et al. 2021 (arXiv 2104.08691), section 2. Taught in the chapter on prefix and
    prompt tuning.

    Attributes:
        prompt_length: p.
        place: ``"after"``: the vectors stand before what the embeddings give, as they are, and the
            tokens keep their positions: as in ``adapters``, with which prompts were put before
            UniPELT. ``"before"``: they are treated as words, so that positions, segment and
            LayerNorm come on top and the tokens move p positions on, as in ``peft``; the encoder
            then takes p tokens less.
        init: ``"uniform"``: from U(-0.5, 0.5), as in ``adapters``. ``"vocabulary"``: p word
            vectors drawn at random. ``"text"``: the word vectors of ``init_text``, from its
            beginning again where it is too short.
        init_text: The text to start from.
    """

    name: ClassVar[str] = "prompt"
    paper: ClassVar[str] = "lester2021prompt"
    chapter: ClassVar[str] = "methods/prefix-and-prompt"

    prompt_length: int = 10
    place: Place = "after"
    init: Init = "uniform"
    init_text: str | None = None

    def check(self) -> None:
        """Check the settings."""
        check_whole("prompt_length", self.prompt_length)
        if (self.init == "text") != bool(self.init_text and self.init_text.strip()):
            raise SettingsError(
                f"init is {self.init!r} and init_text is {self.init_text!r}: a text to start from "
                "goes with init='text', and only with it."
            )

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training; never."""
        return False

    @property
    def extra_tokens(self) -> int:
        """How many vectors the method puts before the tokens."""
        return self.prompt_length

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add the prompt to the embeddings.

        Raises:
            SettingsError: No position is left for tokens, or the encoder has no tokenizer to read
                ``init_text``.
        """
        if self.place == "before":
            encoder.reserve(self.prompt_length)
        site = embedding_site(encoder)
        words: Any = site.word_embeddings
        part = PromptPart(self._start(encoder, words.weight))
        site.add(site.prompts if self.place == "after" else site.words, self.name + suffix, part)

    def _start(self, encoder: Encoder, words: Tensor) -> Tensor:
        """Return the initial vectors [p, d], given the table of word vectors."""
        p, d = self.prompt_length, encoder.anatomy.hidden_size
        if self.init == "uniform":
            return torch.rand(p, d) - 0.5
        if self.init == "vocabulary":
            chosen = torch.randint(len(words), (p,))
        else:
            ids = _ids(encoder, self.init_text)
            chosen = torch.tensor([ids[i % len(ids)] for i in range(p)])
        return words.detach()[chosen.to(words.device)].clone()

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count pd."""
        n = self.prompt_length * anatomy.hidden_size
        return Counts(trainable=n, stored=n, inference=n)

    def products(self, sketch: Sketch) -> None:
        """Draw p more states for the whole encoder to work on."""
        prompt = States(texts=1, length=self.prompt_length, needs=True)
        place = "prompts" if self.place == "after" else "words"
        sketch.parts[EMBEDDINGS, place].append(lambda tape, at: prompt)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` (place "after") or ``peft`` (place "before") writes it.

        For ``adapters`` the prompt goes behind the first token, so that its heads read CLS.
        """
        label = f"{self.name}{suffix}.vectors"
        if library == "adapters" and self.place == "after":
            return Foreign(
                {
                    "architecture": "prompt_tuning",
                    "prompt_length": self.prompt_length,
                    "combine": "prefix_after_bos",
                },
                {
                    f"embeddings.prompts.{label}": (
                        "prompt_tuning.prompt_tunings.{name}.prompt_embedding.weight"
                    )
                },
            )
        if library == "peft" and self.place == "before":
            return Foreign(
                {
                    "peft_type": "PROMPT_TUNING",
                    "task_type": "FEATURE_EXTRACTION",
                    "num_virtual_tokens": self.prompt_length,
                    "token_dim": anatomy.hidden_size,
                    "num_transformer_submodules": 1,
                    "num_attention_heads": anatomy.num_heads,
                    "num_layers": len(anatomy.layers),
                },
                {f"base_model.model.embeddings.words.{label}": "prompt_embeddings"},
            )
        return None

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of a prompt of ``adapters`` or ``peft``."""
        if library == "adapters" and config.get("architecture") == "prompt_tuning":
            return cls(prompt_length=config["prompt_length"])
        if library == "peft" and config.get("peft_type") == "PROMPT_TUNING":
            return cls(prompt_length=config["num_virtual_tokens"], place="before")
        return None


def _ids(encoder: Encoder, text: str | None) -> list[int]:
    """Return the ids of a text's words, without special tokens."""
    if encoder.tokenizer is None:
        raise SettingsError(
            f"The encoder {encoder.name!r} has no tokenizer to read init_text: choose another init."
        )
    ids: list[int] = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


preset("prompt-10", Prompt(prompt_length=10))
