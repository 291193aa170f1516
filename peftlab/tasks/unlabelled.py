"""The texts of a labelled data set, for masked language modelling before the task itself.

Language modelling on the texts of a task is pretraining on the task; on those of another set of the
same domain, on the domain (Gururangan et al. 2020, arXiv 2004.10964).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peftlab.tasks.fields import Row
from peftlab.tasks.splits import Data

#: What stands before the name of a data set if only its texts are meant.
TEXT_OF = "text-of/"
FIELD = "text"


def texts(data: Data, fields: Sequence[str]) -> Data:
    """Return the same splits with every text of a row as a row of its own, without its label.

    A development split that is cut from train is cut anew.

    Args:
        data: Of a data set with labels.
        fields: Where its rows have their texts.
    """
    return replace(
        data,
        read=lambda split: _apart(data.read(split), fields),
        origin={**data.origin, "texts": list(fields)},
    )


def _apart(rows: Sequence[Row], fields: Sequence[str]) -> list[Row]:
    return [{FIELD: row[name]} for row in rows for name in fields if str(row[name]).strip()]
