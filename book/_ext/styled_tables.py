"""Let tables that pandas has styled look like those that it has not.

The theme draws a table by its class, which pandas gives to plain ones only.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

STYLED = '<table id="T_'
DRAWN = '<table class="dataframe" id="T_'


def name_tables(app: Sphinx, document: nodes.document) -> None:
    for raw in document.findall(nodes.raw):
        if STYLED in raw.astext():
            raw.children = [nodes.Text(raw.astext().replace(STYLED, DRAWN))]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", name_tables)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
