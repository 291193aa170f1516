"""The data sets that peftlab knows by name: one row each, and nothing else.

To add a data set, add a row to the file of its family. A row says where the data lie, what the
fields and labels are called, which stored split is which, and how the task is scored. Reading is in
``sources.py``.

A revision is pinned where the commit is known from public code that reads the data set with it;
else the hub's default branch is used. What was really read is written down as SHA-256 of the rows
in ``task.provenance``.
"""

from __future__ import annotations

from peftlab.tasks.catalog import choices, domains, glue, indic, languages, pocket, texts
from peftlab.tasks.catalog.dataset import ANY, DataSet

__all__ = ["ANY", "ROWS", "DataSet"]

ROWS = (
    *glue.ROWS,
    *domains.ROWS,
    *languages.ROWS,
    *choices.ROWS,
    *indic.ROWS,
    *texts.ROWS,
    *pocket.ROWS,
)
