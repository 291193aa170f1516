"""Where an encoder comes from, and what it is made of.

An encoder is named by a hub id, a folder, or ``pocket``. Its *anatomy* says where each layer keeps
its projections and blocks, so that every method finds them in one place, whatever the model family.
This file knows no method, no task and no training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from peftlab.errors import DataError, OfflineError, SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["cls", "mean"]

POCKET = Path(__file__).parent / "pocket"
ATTENTION = ("sdpa", "eager")
WITH_POOLER = ("bert", "camembert", "roberta", "xlm-roberta")


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
        SettingsError: The layers are not built or not named as BERT's are.
    """
    config: Any = backbone.config
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
        self._positions = self.anatomy.max_length
        self.reserve(0)  # many tokenizers do not know how much their model takes
        _ = self.fingerprint  # taken now, before any method or training touches the weights

    def reserve(self, positions: int) -> None:
        """Take positions away from the tokens, for what a method puts before them.

        Raises:
            SettingsError: Fewer than three would be left: two special tokens and one word.
        """
        if self._positions - positions < 3:
            raise SettingsError(
                f"{positions} vectors before the tokens leave no room for a text: the encoder "
                f"{self.name!r} has {self.anatomy.max_length} positions; take fewer vectors."
            )
        self._positions -= positions
        if self.tokenizer is not None:
            longest = min(self.tokenizer.model_max_length, self._positions)
            self.tokenizer.model_max_length = longest

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the weights as loaded: names, shapes, types and values.

        Two encoders of one configuration and one fingerprint give the same hidden states. It is
        what a checkpoint remembers of its backbone.
        """
        digest = hashlib.sha256()
        for name, tensor in self.backbone.state_dict().items():
            if tensor.is_meta:
                return "meta"
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_view_bytes(tensor))
        return digest.hexdigest()


def _view_bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def resolve(name: str) -> str:
    """Return the folder or hub id that a name stands for.

    ``pocket`` is the encoder that ships with the package. A hub id is looked for first under
    ``$PEFTLAB_MODELS/<owner>/<name>``. A name that is an existing folder stands for itself.

    Args:
        name: Hub id, folder or ``pocket``.

    Returns:
        A folder, or the hub id unchanged.
    """
    if name == "pocket":
        return str(POCKET)
    local = os.environ.get("PEFTLAB_MODELS")
    if local and (Path(local) / name / "config.json").is_file():
        return str(Path(local) / name)
    return name


def load_encoder(name: str, *, attention: str = "sdpa", random_weights: bool = False) -> Encoder:
    """Load an encoder by hub id, folder, or ``pocket``.

    Args:
        name: ``"xlm-roberta-base"``, ``"path/to/folder"``, ``"pocket"`` …
        attention: ``"sdpa"`` (PyTorch's fused attention) or ``"eager"`` (written out).
        random_weights: Keep architecture and tokenizer but draw the weights from torch's current
            random state: the control that shows what pretraining brings.

    Returns:
        The encoder, in evaluation mode, fp32, on the CPU.

    Raises:
        SettingsError: ``attention`` is not known, or the model's layers are not built as BERT's.
        DataError: The folder holds no model, or a damaged one.
        OfflineError: The name is a hub id and the hub cannot be reached.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel

    if attention not in ATTENTION:
        raise SettingsError(f"attention is {attention!r}: choose one of {', '.join(ATTENTION)}.")
    source = resolve(name)
    is_folder = Path(source).is_dir()
    if is_folder and not (Path(source) / "config.json").is_file():
        raise DataError(f"The folder {name!r} holds no model: config.json is missing.")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        options: dict[str, Any] = {"attn_implementation": attention}
        if config.model_type in WITH_POOLER:
            options["add_pooling_layer"] = False
        tokenizer = _tokenizer(source)
        if random_weights:
            backbone = AutoModel.from_config(config, dtype=torch.float32, **options)
        else:
            with _quiet_loading():
                backbone, found = AutoModel.from_pretrained(
                    source, dtype=torch.float32, output_loading_info=True, **options
                )
            if found["missing_keys"]:
                # transformers would go on with random weights in their place
                raise DataError(
                    f"The weights of {name!r} lack {sorted(found['missing_keys'])[0]!r} and "
                    f"{len(found['missing_keys']) - 1} more; the file is of another model or "
                    "damaged: fetch it again."
                )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_folder:
            raise DataError(
                f"The encoder in {name!r} cannot be read: {_first_line(error)}"
            ) from error
        raise OfflineError(
            f"The encoder {name!r} is neither a folder here nor to be had from the hub "
            f"({_first_line(error)}); check the name, or put it under "
            "$PEFTLAB_MODELS/<owner>/<name> to work offline."
        ) from error
    backbone.eval()
    return Encoder(
        name,
        backbone,
        tokenizer,
        _pooling(source),
        random_weights=random_weights,
        source=None if random_weights else source,
    )


#: Tensors of a language-model head, and what they are called in BERT's and in RoBERTa's.
_DECODERS = {
    "dense.weight": ("cls.predictions.transform.dense.weight", "lm_head.dense.weight"),
    "dense.bias": ("cls.predictions.transform.dense.bias", "lm_head.dense.bias"),
    "norm.weight": ("cls.predictions.transform.LayerNorm.weight", "lm_head.layer_norm.weight"),
    "norm.bias": ("cls.predictions.transform.LayerNorm.bias", "lm_head.layer_norm.bias"),
    "bias": ("cls.predictions.bias", "lm_head.bias"),
}


def language_model_head(encoder: Encoder) -> dict[str, torch.Tensor] | None:
    """Read the head for masked language modelling that was pretrained with an encoder.

    Args:
        encoder: As :func:`load_encoder` has made it.

    Returns:
        Its transform (``dense``, ``norm``) and the words' ``bias``, fp32. The word vectors are the
        encoder's own. None if the checkpoint has no such head, or one with word vectors of its own,
        or if the weights come from no checkpoint.
    """
    from transformers import AutoModelForMaskedLM

    if encoder.source is None:
        return None
    with _quiet_loading(), torch.random.fork_rng(devices=[]):
        whole, found = AutoModelForMaskedLM.from_pretrained(
            encoder.source, dtype=torch.float32, output_loading_info=True
        )
    tensors = whole.state_dict()
    names = {ours: next(n for n in theirs if n in tensors) for ours, theirs in _DECODERS.items()}
    missing = set(names.values()) & set(found["missing_keys"])
    if missing or not whole.config.tie_word_embeddings:
        return None
    return {ours: tensors[name] for ours, name in names.items()}


def _tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer; whatever its library raises becomes a ValueError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError):
        raise
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise ValueError(f"its tokenizer is missing or damaged: {error}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers 5 makes an empty one where the files are missing
        raise ValueError("its tokenizer has no words: its files are missing")
    return cast("PreTrainedTokenizerBase", tokenizer)


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


def _pooling(source: str) -> Pooling:
    """Read the sentence-transformers note on pooling that may lie beside the weights."""
    note = Path(source) / "1_Pooling" / "config.json"
    if not note.is_file():
        if Path(source).is_dir():
            return "cls"
        from transformers.utils import cached_file

        found = cached_file(
            source,
            "1_Pooling/config.json",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found is None:
            return "cls"
        note = Path(found)
    return "mean" if json.loads(note.read_text())["pooling_mode_mean_tokens"] else "cls"


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep transformers from reporting what we check ourselves, such as a pooler left out."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
