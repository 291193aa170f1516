"""Encoders of known shape, on the meta device or with random weights: nothing is downloaded.

On the meta device they have sizes and no weights: they can be counted and not run. What a step
costs depends on the shape and not on what the weights are, so random ones do for that.
"""

from __future__ import annotations

from peftlab.encoders.encoder import Encoder, encoder_from
from peftlab.errors import unknown

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
MINI = {
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
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
    "xlm-roberta-large": ("xlm-roberta", LARGE | ROBERTA | {"vocab_size": 250_002}),
    "minilm-l6": ("bert", MINI | BERT),
}
#: Those that the three papers count on.
PAPERS = ("bert-base", "roberta-base", "xlm-roberta-base", "bert-large")


def shape(name: str, device: str = "meta", attention: str = "sdpa") -> Encoder:
    """Build an encoder of a known shape, without a tokenizer.

    Args:
        name: One of :data:`SHAPES`, for example ``"bert-base"``.
        device: ``"meta"``: no weights. Elsewhere they are drawn from torch's random state.
        attention: ``"sdpa"`` or ``"eager"``.

    Returns:
        A new encoder; as everywhere here, it has no pooler.

    Raises:
        UnknownNameError: The shape is not known.
    """
    if name not in SHAPES:
        raise unknown("shape of an encoder", name, SHAPES)
    import torch
    from transformers import AutoConfig, AutoModel

    family, sizes = SHAPES[name]
    with torch.device(device):
        backbone = AutoModel.from_config(
            AutoConfig.for_model(family, **sizes),
            add_pooling_layer=False,
            attn_implementation=attention,
        )
    return encoder_from(backbone.eval(), None, name=name)
