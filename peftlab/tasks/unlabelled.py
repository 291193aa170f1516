"""The texts of a labelled data set, for masked language modelling before the task itself.

Language modelling on the texts of a task is pretraining on the task; on those of another set of the
same domain, on the domain (Gururangan et al. 2020, arXiv 2004.10964).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peftlab.tasks.base import Task
from peftlab.tasks.fields import Row
from peftlab.tasks.splits import Data

#: What stands before the name of a data set if only its texts are meant.
TEXT_OF = "text-of/"
FIELD = "text"


def texts(labelled: Task, fields: Sequence[str]) -> Data:
    """Return the splits of a task with every text of a row as a row of its own, without its label.

    What the task would be tested on, or choose by, is never trained on: the splits are the task's,
    those that are cut from its train rows too.

    Args:
        labelled: The task.
        fields: Where its rows have their texts.
    """
    data = labelled.data
    return replace(
        data,
        read=lambda split: _apart(labelled.rows(split), fields),
        where=lambda split: data.where(data.splits.get(split) or data.splits["train"]),
        splits={split: split for split in labelled.splits},
        origin={**data.origin, "texts": list(fields), "splits_of": labelled.name},
        cut=None,
    )


def _apart(rows: Sequence[Row], fields: Sequence[str]) -> list[Row]:
    return [{FIELD: row[name]} for row in rows for name in fields if str(row[name]).strip()]
