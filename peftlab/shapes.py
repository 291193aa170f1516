"""Encoders of known shape on the meta device, and how large each method is on them.

Nothing is downloaded and nothing can be run: these encoders have sizes but no weights. What a
method *costs* in time or memory is not here; FLOPs and parameters are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from peftlab.encoders import Encoder, encoder_from
from peftlab.errors import SettingsError, unknown

#: Layers, width, feed-forward width, heads: Devlin et al. 2019 (arXiv 1810.04805), section 3.
BASE = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
}
LARGE = {
    "num_hidden_layers": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
}
#: Words, positions, segments and the padding index are those of the published configurations.
BERT = {
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
ROBERTA = {
    "vocab_size": 50_265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}
#: Name → model family and configuration. The BERTs are the uncased ones.
SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "bert-base": ("bert", BASE | BERT),
    "roberta-base": ("roberta", BASE | ROBERTA),
    "xlm-roberta-base": ("xlm-roberta", BASE | ROBERTA | {"vocab_size": 250_002}),
    "bert-large": ("bert", LARGE | BERT),
}
#: Tokens of the text over which added FLOPs are counted; attention's depend on the length.
LENGTH = 128


def shape(name: str) -> Encoder:
    """Build an encoder of a known shape, without weights and without a tokenizer.

    Args:
        name: One of :data:`SHAPES`, for example ``"bert-base"``.

    Returns:
        A new encoder, on the meta device; as everywhere here, it has no pooler.

    Raises:
        UnknownNameError: The shape is not known.
    """
    if name not in SHAPES:
        raise unknown("shape of an encoder", name, SHAPES)
    import torch
    from transformers import AutoConfig, AutoModel

    family, sizes = SHAPES[name]
    with torch.device("meta"):
        backbone = AutoModel.from_config(
            AutoConfig.for_model(family, **sizes), add_pooling_layer=False
        )
    return encoder_from(backbone, None, name=name)


@dataclass(frozen=True)
class Size:
    """How large a method is on an encoder of known shape, without the head.

    Attributes:
        method: Name of the preset, or of the method where no preset has its plain settings.
        encoder: Name of the shape.
        trainable, stored, inference: See :class:`peftlab.methods.Counts`.
        flops: Added to the forward pass by the unmerged method, per token of a text of
            :data:`LENGTH` tokens; 2 × multiply-accumulates of matrix products.
        mergeable: Whether the method can be merged, so that inference adds nothing.
    """

    method: str
    encoder: str
    trainable: int
    stored: int
    inference: int
    flops: float
    mergeable: bool


def sizes(name: str) -> tuple[list[Size], dict[str, str]]:
    """Count every preset, and every method that is no preset, on one shape.

    Each is attached to the encoder, so that one which does not fit it is found out.

    Args:
        name: One of :data:`SHAPES`.

    Returns:
        The sizes in the order of the registry, and for each method that cannot be attached the
        reason.

    Raises:
        UnknownNameError: The shape is not known.
    """
    import torch

    from peftlab import methods
    from peftlab.methods import sites

    encoder = shape(name)
    found, left_out = [], {}
    for label, method in methods.catalogue().items():
        encoder.backbone.requires_grad_(False)
        try:
            with torch.device("meta"):
                method.attach(encoder)
            counts = method.counts(encoder.anatomy)
            flops = method.flops(encoder.anatomy, LENGTH)
        except SettingsError as error:
            left_out[label] = str(error)
            continue
        finally:
            sites.remove(encoder.backbone)
        found.append(
            Size(
                method=label,
                encoder=name,
                trainable=counts.trainable,
                stored=counts.stored,
                inference=counts.inference,
                flops=flops / LENGTH,
                mergeable=method.mergeable,
            )
        )
    return found, left_out
