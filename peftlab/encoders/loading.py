"""Where an encoder comes from: a hub id, a folder, or ``pocket``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from peftlab.encoders.encoder import Encoder, Pooling
from peftlab.errors import DataError, OfflineError, SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POCKET = Path(__file__).parents[1] / "pocket"
ATTENTION = ("sdpa", "eager")
WITH_POOLER = ("bert", "camembert", "roberta", "xlm-roberta")


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
