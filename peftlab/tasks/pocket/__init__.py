"""The pocket tasks: seven small tasks in six languages, generated, parallel, the same everywhere.

They let a small encoder show on a laptop, without a network, what the real data sets show on a GPU.
They are no benchmark: results on them are labelled ``pocket`` and stand beside no paper's numbers.

Row ``i`` of a split means the same in every language, so a score in another language measures
transfer and nothing else. The test split has words (names, nouns, verbs, adjectives) and templates
of its own; dev has those of train in other combinations. Labels are balanced, and one text alone,
its length or the overlap of two texts do not tell them (``tests/tasks/test_pocket_artefacts.py``).

To add a language: append its code to ``wording.LANGUAGES`` and one column to every row of
``lexicon/*.toml``, each in the form its template needs; ``ner.toml`` says where names stand.
To add a task: write ``lexicon/<task>.toml`` with the tables ``train`` and ``test``; a function
``(Draw, part) -> [Maker]`` that draws a balanced group of rows (see ``pairs.py``); a line in
:data:`TASKS`. Then freeze its digests: ``python tests/tasks/test_pocket.py``.

Taught in the chapter on zero-shot transfer; the fields are those of XNLI (Conneau et al., 2018),
SST-2 and MRPC (GLUE, Wang et al., 2019), WikiANN (Pan et al., 2017), SQuAD (Rajpurkar et al., 2016)
and COPA (Roemmele et al., 2011).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from peftlab.errors import DataError, unknown
from peftlab.tasks.fields import Row
from peftlab.tasks.pocket import pairs, spans, texts
from peftlab.tasks.pocket.draws import Draw
from peftlab.tasks.pocket.wording import LANGUAGES

#: Rows in each split.
SIZES = {"train": 2000, "dev": 300, "test": 500}


@dataclass(frozen=True)
class PocketTask:
    """What a pocket task is.

    Attributes:
        kind: Kind of task: classification, tagging, qa or choice.
        fields: The fields of a row, the label's last.
        labels: Names of the labels in the order of their indices; empty for questions.
        main_metric: The metric to compare by.
        draw: Draws a balanced group of rows.
    """

    kind: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    main_metric: str
    draw: Callable[[Draw, str], list[pairs.Maker]]


#: The tasks by name.
TASKS = {
    "nli": PocketTask(
        kind="classification",
        fields=("premise", "hypothesis", "label"),
        labels=("entailment", "neutral", "contradiction"),
        main_metric="accuracy",
        draw=pairs.nli,
    ),
    "sentiment": PocketTask(
        kind="classification",
        fields=("sentence", "label"),
        labels=("negative", "positive"),
        main_metric="accuracy",
        draw=texts.sentiment,
    ),
    "topic": PocketTask(
        kind="classification",
        fields=("text", "label"),
        labels=texts.TOPICS,
        main_metric="accuracy",
        draw=texts.topic,
    ),
    "paraphrase": PocketTask(
        kind="classification",
        fields=("sentence1", "sentence2", "label"),
        labels=("not_equivalent", "equivalent"),
        main_metric="accuracy",
        draw=pairs.paraphrase,
    ),
    "ner": PocketTask(
        kind="tagging",
        fields=("tokens", "ner_tags"),
        labels=spans.TAGS,
        main_metric="span_f1",
        draw=spans.ner,
    ),
    "qa": PocketTask(
        kind="qa",
        fields=("id", "context", "question", "answers"),
        labels=(),
        main_metric="f1",
        draw=spans.qa,
    ),
    "copa": PocketTask(
        kind="choice",
        fields=("premise", "choice1", "choice2", "question", "label"),
        labels=("choice1", "choice2"),
        main_metric="accuracy",
        draw=pairs.copa,
    ),
}


def rows(task: str, language: str, split: str) -> list[Row]:
    """Return the rows of a split.

    Args:
        task: Name in :data:`TASKS`.
        language: Code in :data:`LANGUAGES`.
        split: ``"train"``, ``"dev"`` or ``"test"``.

    Returns:
        ``SIZES[split]`` rows with the fields ``TASKS[task].fields``, the caller's to change. Labels
        and tags are indices in ``TASKS[task].labels``. A choice's label is 0 for ``choice1``.

    Raises:
        UnknownNameError: There is no such task, language or split.
        DataError: The lexicon has too few combinations for so many different rows.
    """
    if task not in TASKS:
        raise unknown("pocket task", task, TASKS)
    if language not in LANGUAGES:
        raise unknown("language of the pocket tasks", language, LANGUAGES)
    if split not in SIZES:
        raise unknown("split of the pocket tasks", split, SIZES)
    return copy.deepcopy(_splits(task)[split][LANGUAGES.index(language)])


@cache
def _splits(task: str) -> dict[str, list[list[Row]]]:
    """Make every split in every language at once: a row must be new in all of them."""
    seen: set[tuple[int, str]] = set()
    result = {}
    for split, size in SIZES.items():
        draw = Draw(f"pocket/{task}/{split}")
        new = _new_rows(task, split, draw, seen)
        made = draw.some([next(new) for _ in range(size)], size)
        if "id" in TASKS[task].fields:
            made = [tuple({"id": f"{split}-{i}"} | r for r in made[i]) for i in range(size)]
        result[split] = [list(column) for column in zip(*made, strict=True)]
    return result


def _new_rows(
    task: str, split: str, draw: Draw, seen: set[tuple[int, str]]
) -> Iterator[tuple[Row, ...]]:
    """Yield rows, each in all languages, group by group; skip groups with a row seen before."""
    part = "test" if split == "test" else "train"
    failures = 0
    while failures < 1000:
        group = TASKS[task].draw(draw, part)
        made = [tuple(make(language) for language in range(len(LANGUAGES))) for make in group]
        keys = {
            (language, json.dumps(row, sort_keys=True))
            for versions in made
            for language, row in enumerate(versions)
        }
        if len(keys) < len(made) * len(LANGUAGES) or keys & seen:
            failures += 1
            continue
        failures = 0
        seen |= keys
        yield from made
    raise DataError(
        f"The lexicon of pocket/{task} is too small for {SIZES[split]} different rows in "
        f"{split}: add words or templates."
    )
