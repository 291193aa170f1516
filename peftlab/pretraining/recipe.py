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
    """The encoder's architecture and its tokenizer's vocabulary.

    Its heads are as wide as the teacher's.
    """

    vocabulary: int
    hidden_size: int
    layers: list[int]  # which of the teacher's it starts as; 0 is the lowest
    intermediate_size: int
    max_length: int
    english_share: float  # part of the tokenizer's sample that is English
    from_teacher: bool  # false: all weights are drawn


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
    mask_rate: float
    sentence: float  # weight of the likeness to the teacher's sentence vectors
    words: float  # of the likeness to its word states
    masked: float  # of masked language modelling
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
        teacher: Encoder that reads the English texts; the student starts as a part of it.
        teacher_layer: Whose states teach words; 0 is the embedding layer.
        sources: See :func:`peftlab.pretraining.corpus.read_corpus`.
    """

    seed: int
    languages: list[str]
    relatives: float
    teacher: str
    teacher_layer: int
    encoder: EncoderSizes
    bag: BagStage
    encoder_stage: EncoderStage
    sources: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read and check a recipe file.

        A recipe may name another as its ``base``, by a path from its own folder, and say only what
        differs.

        Raises:
            SettingsError: The file is missing or no TOML, or a setting is missing or not known.
        """
        table = _table(Path(path))
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
            That of tokenizer and bag, which many encoders can start from, and that of the whole.
        """
        settings = asdict(self)
        sizes = self.encoder
        bag = [settings[name] for name in ("seed", "languages", "relatives", "teacher", "bag")]
        bag += [sizes.vocabulary, sizes.max_length, sizes.english_share]
        digest = hashlib.sha256("\n".join([repr(bag), *texts]).encode())
        first = digest.hexdigest()[:16]
        digest.update(repr(settings).encode())
        return first, digest.hexdigest()[:16]


def _table(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"There is no recipe file {str(path)!r}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The recipe {str(path)!r} is not valid TOML: {error}.") from error
    if "base" in table:
        table = _over(_table(path.parent / table.pop("base")), table)
    return table


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Put changes over a table, key by key in the tables within it."""
    inner = {
        key: _over(base[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | changes | inner


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
