"""What an encoder is made of: where each layer keeps its projections and blocks.

So every method finds them in one place, whatever the model family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from peftlab.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Slot:
    """One submodule that can be replaced: its parent and the attribute that holds it."""

    parent: nn.Module
    name: str

    def get(self) -> nn.Module:
        """Return the module that is in the slot now."""
        return cast(nn.Module, getattr(self.parent, self.name))

    def set(self, module: nn.Module) -> None:
        """Put another module into the slot."""
        setattr(self.parent, self.name, module)


@dataclass(frozen=True)
class LayerAnatomy:
    """One transformer layer of width d and feed-forward width d_ff.

    Attributes:
        index: Position, 0 is the lowest layer.
        module: The whole layer.
        query, key, value: The projections, linear d → d.
        attention: The self-attention module, which owns the three projections.
        attention_output: The block after attention (dense d → d, dropout, LayerNorm over the sum
            with the residual); called with (hidden, residual).
        intermediate: The first feed-forward map, linear d → d_ff.
        output: The block after the feed-forward map (dense d_ff → d, dropout, LayerNorm over the
            sum with the residual); called with (hidden, residual).
        attention_dense, output_dense: The linear maps inside the two blocks.
    """

    index: int
    module: nn.Module
    query: Slot
    key: Slot
    value: Slot
    attention: Slot
    attention_output: Slot
    intermediate: Slot
    output: Slot
    attention_dense: Slot
    output_dense: Slot

    def linears(self) -> dict[str, Slot]:
        """Return the layer's six linear maps under the names that methods use for them."""
        return {
            "query": self.query,
            "key": self.key,
            "value": self.value,
            "attention_output": self.attention_dense,
            "intermediate": self.intermediate,
            "output": self.output_dense,
        }


LINEARS = ("query", "key", "value", "attention_output", "intermediate", "output")


@dataclass(frozen=True)
class Anatomy:
    """What an encoder is made of: its layers from low to high, its embeddings and its sizes.

    ``max_length`` is the longest input in tokens, special tokens included.
    """

    layers: tuple[LayerAnatomy, ...]
    embeddings: Slot
    hidden_size: int
    intermediate_size: int
    num_heads: int
    vocab_size: int
    max_length: int
    model_type: str


def describe(backbone: PreTrainedModel) -> Anatomy:
    """Find the anatomy of a backbone with BERT's layer structure.

    Args:
        backbone: A ``BertModel``, ``RobertaModel``, ``XLMRobertaModel`` or a model whose layers
            carry the same names.

    Returns:
        The anatomy; its slots point into ``backbone``.

    Raises:
        SettingsError: The layers are not built or not named as BERT's are, or its positions are not
            absolute.
    """
    config: Any = backbone.config
    positions_as = getattr(config, "position_embedding_type", "absolute")
    if positions_as != "absolute":
        raise SettingsError(
            f"The encoder has {positions_as!r} positions, which transformers 5 leaves out: use an "
            "encoder with absolute ones."
        )
    encoder: Any = getattr(backbone, "encoder", None)
    try:
        layers = tuple(
            LayerAnatomy(
                index=i,
                module=layer,
                query=Slot(layer.attention.self, "query"),
                key=Slot(layer.attention.self, "key"),
                value=Slot(layer.attention.self, "value"),
                attention=Slot(layer.attention, "self"),
                attention_output=Slot(layer.attention, "output"),
                intermediate=Slot(layer.intermediate, "dense"),
                output=Slot(layer, "output"),
                attention_dense=Slot(layer.attention.output, "dense"),
                output_dense=Slot(layer.output, "dense"),
            )
            for i, layer in enumerate(encoder.layer)
        )
        for layer in layers:
            for slot in layer.linears().values():
                slot.get()
            for block in (layer.attention_output, layer.output):
                for name in ("dropout", "LayerNorm"):
                    Slot(block.get(), name).get()
        embeddings = Slot(backbone, "embeddings")
        positions: Any = embeddings.get().position_embeddings
    except AttributeError as error:
        raise SettingsError(
            f"The layers of a {type(backbone).__name__} are not built as BERT's are ({error}); "
            "use a BERT, RoBERTa or XLM-RoBERTa encoder."
        ) from error
    # RoBERTa's positions start behind the padding index, so two of them are never used.
    offset = 0 if positions.padding_idx is None else positions.padding_idx + 1
    return Anatomy(
        layers=layers,
        embeddings=embeddings,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
        max_length=config.max_position_embeddings - offset,
        model_type=config.model_type,
    )
