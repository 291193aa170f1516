"""Where the encoder starts: as a part of the teacher that reads other languages word by word.

Heads, feed-forward neurons and coordinates of the teacher are left out, those that matter least by
its activations (structured pruning: Muralidharan et al. 2024, "Compact language models via pruning
and knowledge distillation", section 2), and layers that the recipe does not name. Its vocabulary is
exchanged: a piece of another language gets the mixture of the English word vectors that the bag
found nearest in meaning (Minixhofer et al. 2022, "WECHSEL", section 3.1).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftlab.errors import SettingsError
from peftlab.pretraining.recipe import EncoderSizes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftlab.encoders import Encoder

NEIGHBOURS = 10
TEMPERATURE = 0.1


@torch.no_grad()
def piece_vectors(
    bag: Tensor,
    english: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    teacher: Encoder,
) -> Tensor:
    """Give every piece of the student's tokenizer a word vector in the teacher's space.

    A piece that both tokenizers know keeps the teacher's vector as far as it is English, and is a
    mixture of neighbours otherwise: "die" is seldom the English word.

    Args:
        bag: [vocabulary, any width], the trained bag.
        english: [vocabulary], how English each piece is, 0 … 1.
        tokenizer: The student's.
        teacher: Its tokenizer and word vectors are used.

    Returns:
        [vocabulary, d_teacher].
    """
    assert teacher.tokenizer is not None
    theirs = teacher.tokenizer.get_vocab()
    table: Any = teacher.backbone.get_input_embeddings().weight
    shared = [(i, theirs[piece]) for piece, i in tokenizer.get_vocab().items() if piece in theirs]
    ours, old = torch.tensor(sorted(shared)).T
    english = english.clone()
    english[tokenizer.all_special_ids] = 1.0
    sure = english[ours] > 0.5
    anchors, vectors = F.normalize(bag[ours[sure]], dim=-1), table[old[sure]]
    nearest = (F.normalize(bag, dim=-1) @ anchors.T).topk(min(NEIGHBOURS, len(anchors)))
    weights = (nearest.values / TEMPERATURE).softmax(-1)
    mixed = torch.einsum("vk,vkd->vd", weights, vectors[nearest.indices])
    # a mean of vectors is shorter than they are
    length = torch.einsum("vk,vk->v", weights, vectors.norm(dim=-1)[nearest.indices])
    mixed = F.normalize(mixed, dim=-1) * length[:, None]
    share = english[ours, None]
    mixed[ours] = share * table[old] + (1 - share) * mixed[ours]
    return mixed


@torch.no_grad()
def prune(
    teacher: Encoder, texts: list[str], vectors: Tensor, sizes: EncoderSizes
) -> tuple[nn.Module, Tensor]:
    """Make the student's encoder of a part of the teacher.

    Args:
        teacher: A BERT.
        texts: English; what matters is judged by the activations on them.
        vectors: The student's word vectors in the teacher's space, [vocabulary, d_teacher].
        sizes: What is kept.

    Returns:
        The encoder, and which of the teacher's coordinates it kept, int64 [hidden_size].

    Raises:
        SettingsError: The teacher is no BERT, or has less than is to be kept.
    """
    from transformers import BertModel

    config = _config(teacher, len(vectors), sizes)
    old: Any = teacher.backbone
    width = old.config.hidden_size // old.config.num_attention_heads
    activity = _activity(teacher, texts)
    norms = [activity["embeddings.LayerNorm"]]
    norms += [activity[f"encoder.layer.{i}.output.LayerNorm"] for i in sizes.layers]
    kept = _largest(torch.stack(norms).sum(0), sizes.hidden_size)

    new: Any = BertModel(config, add_pooling_layer=False)
    new.embeddings.word_embeddings.weight.copy_(vectors[:, kept])
    for name in ("position_embeddings", "token_type_embeddings"):
        table = getattr(new.embeddings, name).weight
        table.copy_(getattr(old.embeddings, name).weight[: len(table), kept])
    _cut_norm(new.embeddings.LayerNorm, old.embeddings.LayerNorm, kept)
    for layer, i in zip(new.encoder.layer, sizes.layers, strict=True):
        whole, name = old.encoder.layer[i], f"encoder.layer.{i}"
        outgoing = whole.attention.output.dense.weight.pow(2).sum(0)
        matter = (activity[f"{name}.attention.output.dense"] * outgoing).view(-1, width).sum(1)
        heads = _largest(matter, config.num_attention_heads)
        states = (heads[:, None] * width + torch.arange(width)).flatten()
        for part in ("query", "key", "value"):
            _cut(
                getattr(layer.attention.self, part),
                getattr(whole.attention.self, part),
                states,
                kept,
            )
        _cut(layer.attention.output.dense, whole.attention.output.dense, kept, states)
        outgoing = whole.output.dense.weight.pow(2).sum(0)
        neurons = _largest(activity[f"{name}.output.dense"] * outgoing, sizes.intermediate_size)
        _cut(layer.intermediate.dense, whole.intermediate.dense, neurons, kept)
        _cut(layer.output.dense, whole.output.dense, kept, neurons)
        _cut_norm(layer.attention.output.LayerNorm, whole.attention.output.LayerNorm, kept)
        _cut_norm(layer.output.LayerNorm, whole.output.LayerNorm, kept)
    return new, kept


def draw(teacher: Encoder, vocabulary: int, sizes: EncoderSizes) -> tuple[nn.Module, Tensor]:
    """Make an encoder of the same architecture whose weights are all drawn; see :func:`prune`."""
    from transformers import BertModel

    new = BertModel(_config(teacher, vocabulary, sizes), add_pooling_layer=False)
    return new, torch.arange(sizes.hidden_size)


def _config(teacher: Encoder, vocabulary: int, sizes: EncoderSizes) -> Any:
    old = teacher.backbone.config
    if old.model_type != "bert":
        raise SettingsError(f"The teacher {teacher.name!r} is no BERT: choose one that is.")
    width = old.hidden_size // old.num_attention_heads
    if sizes.hidden_size % width or sizes.hidden_size > old.hidden_size:
        raise SettingsError(
            f"The student's hidden_size is {sizes.hidden_size}: it must be a multiple of the width "
            f"of the teacher's heads, {width}, and at most {old.hidden_size}."
        )
    if sizes.intermediate_size > old.intermediate_size:
        raise SettingsError(
            f"The student's intermediate_size {sizes.intermediate_size} is above the teacher's "
            f"{old.intermediate_size}."
        )
    if not set(sizes.layers) <= set(range(old.num_hidden_layers)):
        raise SettingsError(
            f"The student's layers are {sizes.layers}: the teacher has 0 to "
            f"{old.num_hidden_layers - 1}."
        )
    config = copy.deepcopy(old)
    config.update(
        {
            "vocab_size": vocabulary,
            "hidden_size": sizes.hidden_size,
            "num_hidden_layers": len(sizes.layers),
            "num_attention_heads": sizes.hidden_size // width,
            "intermediate_size": sizes.intermediate_size,
            "max_position_embeddings": sizes.max_length,
            "pad_token_id": 0,  # the tokenizer's first
            "hidden_dropout_prob": 0.0,  # masked pieces are noise enough
            "attention_probs_dropout_prob": 0.0,
        }
    )
    # On a CPU, the backward pass of PyTorch's own kernel is up to ten times as slow in bf16. Some
    # releases of transformers choose the kernel when the model is built, so it is said here.
    config._attn_implementation = "eager"
    return config


def _activity(teacher: Encoder, texts: list[str]) -> dict[str, Tensor]:
    """Measure by module: variances behind each LayerNorm, mean squares before each map."""
    found: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.LayerNorm):
                found[name] = output[mask].var(0)
            else:
                found[name] = inputs[0][mask].pow(2).mean(0)

        return module.register_forward_hook(hook)

    assert teacher.tokenizer is not None
    encoded = teacher.tokenizer(
        texts, truncation=True, max_length=128, padding=True, return_tensors="pt"
    )
    mask = encoded["attention_mask"].bool()
    hooks = [
        watch(name, module)
        for name, module in teacher.backbone.named_modules()
        if isinstance(module, nn.LayerNorm | nn.Linear)
    ]
    teacher.backbone(**encoded)
    for hook in hooks:
        hook.remove()
    return found


def _largest(values: Tensor, number: int) -> Tensor:
    return values.topk(number).indices.sort().values


def _cut(new: Any, old: Any, rows: Tensor, columns: Tensor) -> None:
    new.weight.copy_(old.weight[rows][:, columns])
    new.bias.copy_(old.bias[rows])


def _cut_norm(new: Any, old: Any, kept: Tensor) -> None:
    new.weight.copy_(old.weight[kept])
    new.bias.copy_(old.bias[kept])


def english_shares(counts: dict[str, Tensor]) -> Tensor:
    """Say how English each piece is: its rate in English over that plus its highest rate elsewhere.

    Args:
        counts: By language, how often each piece occurs, [vocabulary].

    Returns:
        [vocabulary], 0 … 1; 0 for pieces that never occur.
    """
    rates = {language: each / each.sum().clamp(min=1) for language, each in counts.items()}
    english = rates.pop("en")
    other = _highest(rates.values(), english)
    return english / (english + other).clamp(min=1e-12)


def _highest(rates: Iterable[Tensor], like: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(like), *rates]).amax(0)
