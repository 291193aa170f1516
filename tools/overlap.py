"""Compare the vocabularies of tasks with those of texts to pretrain on, and write what is shared.

The texts themselves are not in the repository, so the shares are kept, and a test finds them again.

    PEFTLAB_DATA=folder python -m tools.overlap
"""

import json
import os
import random
import sys
from itertools import accumulate
from typing import Any

from peftlab import tasks
from peftlab.files import replacing
from peftlab.tasks.overlap import WORD, vocabulary_overlap
from tools.owner import ROOT

FOUND = ROOT / "book" / "papers" / "overlap.json"
TASKS = ("acl-arc", "scierc", "chemprot", "glue/sst2")
#: General text, and the domain's stand-in: see prompt-unipelt.toml.
TEXTS = ("wikitext-2", "text-of/csabstruct")
WORDS = 45_000  # of each: the smallest has not many more
MOST = 2500  # frequent words of each side: every collection has more different ones


def sample(name: str) -> list[str]:
    """Return train texts of a collection, drawn until they have so many words."""
    rows: list[Any] = list(tasks.task(name).rows("train"))
    random.Random(0).shuffle(rows)
    texts = [str(row["text"]) for row in rows]
    ends = list(accumulate(len(WORD.findall(text)) for text in texts))
    if ends[-1] < WORDS:
        raise SystemExit(f"{name} has {ends[-1]} words only: lower WORDS.")
    return texts[: next(i for i, end in enumerate(ends, 1) if end >= WORDS)]


def found() -> dict[str, Any]:
    """Return the shares: task → texts → share, of how many frequent words, of how many words."""
    theirs = {name: sample(name) for name in TEXTS}
    shares: dict[str, dict[str, float]] = {}
    sizes = set()
    for task in TASKS:
        ours = sample(f"text-of/{task}")
        shares[task] = {}
        for name, texts in theirs.items():
            share, size = vocabulary_overlap(ours, texts, most=MOST)
            shares[task][name] = round(share, 4)
            sizes.add(size)
    (size,) = sizes  # else the shares could not be compared
    return {"words": WORDS, "frequent": size, "shares": shares}


def main() -> None:
    """Write what was found."""
    if not os.environ.get("PEFTLAB_DATA"):
        sys.exit("PEFTLAB_DATA names no folder: set it to where the data sets lie.")
    with replacing(FOUND) as temporary:
        temporary.write_text(json.dumps(found(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
