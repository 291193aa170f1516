"""The recipe: everything that decides what comes out of pretraining, read from one TOML file."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from peftlab.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True)
class EncoderSizes:
    """The encoder's architecture (a ``BertConfig``) and its tokenizer's vocabulary."""

    vocabulary: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_length: int
    english_share: float  # part of the tokenizer's sample that is English


@dataclass(frozen=True)
class BagStage:
    """First stage: the bag of word pieces. ``batch`` counts examples."""

    steps: int
    batch: int
    learning_rate: float
    warmup: float
    token_dropout: float
    temperature: float
    contrast: float
    shares: dict[str, float]


@dataclass(frozen=True)
class EncoderStage:
    """Second stage: the encoder. ``tokens`` is the size of a batch, padding included."""

    steps: int
    tokens: int
    learning_rate: float
    embedding_learning_rate: float
    warmup: float
    dropout: float
    mask_rate: float
    masked: float  # weight of the masked language modelling loss
    temperature: float
    contrast: float
    max_length: int
    shares: dict[str, float]


@dataclass(frozen=True)
class Recipe:
    """A whole recipe.

    Attributes:
        seed: Fixes tokenizer sample, initial weights, batches, masks, dropout.
        languages: The encoder's languages beside English.
        relatives: How often pairs of other, related languages are drawn, against these.
        teacher: Encoder whose English sentence embeddings are distilled.
        sources: See :func:`peftlab.pretraining.corpus.read_corpus`.
    """

    seed: int
    languages: list[str]
    relatives: float
    teacher: str
    encoder: EncoderSizes
    bag: BagStage
    encoder_stage: EncoderStage
    sources: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read and check a recipe file.

        Raises:
            SettingsError: The file is missing or no TOML, or a setting is missing or not known.
        """
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise SettingsError(f"There is no recipe file {str(path)!r}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"The recipe {str(path)!r} is not valid TOML: {error}.") from error
        for name, part in (
            ("encoder", EncoderSizes),
            ("bag", BagStage),
            ("encoder_stage", EncoderStage),
        ):
            if isinstance(table.get(name), dict):
                table[name] = _build(part, table[name], f"{path}, [{name}]")
        return _build(cls, table, str(path))

    def keys(self, texts: list[str]) -> tuple[str, str]:
        """Identities of recipe and data: which checkpoints belong to them.

        Args:
            texts: All that the sources held.

        Returns:
            That of tokenizer and bag, which do not depend on the encoder stage's settings, and
            that of the whole.
        """
        settings = asdict(self)
        encoder_stage = repr(settings.pop("encoder_stage"))
        digest = hashlib.sha256("\n".join([repr(settings), *texts]).encode())
        bag = digest.hexdigest()[:16]
        digest.update(encoder_stage.encode())
        return bag, digest.hexdigest()[:16]


def _build(kind: type[T], table: dict[str, Any], where: str) -> T:
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if extra := sorted(set(table) - set(known)):
        raise SettingsError(
            f"{where}: {extra[0]!r} is not a setting; known are {', '.join(known)}."
        )
    for name, field in known.items():
        if name not in table and field.default is MISSING:
            raise SettingsError(f"{where}: the setting {name!r} is missing.")
        value = table[name]
        number = str(field.type) in ("int", "float")
        if number and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise SettingsError(f"{where}: {name} is {value!r}; it must be a number, 0 or more.")
    return kind(**table)
