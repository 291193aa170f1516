"""Open every chapter with where it can be run and how long that takes, as measured.

The time on a CPU is that of the execution whose outputs the page shows. Times on GPUs come from
book/chapters.json, written by ``make record-times`` on the machine it names; a page without
one says so. No time is typed.
"""

import json
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# Pages that only draw records: nobody runs them by themselves.
NO_CHAPTERS = ("book/index", "book/reference/")
RECORDS = "book/chapters.json"


def spoken(seconds: float) -> str:
    """Return a duration as people say it, with no more digits than it deserves."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min"


def sentences(runtime: float | None, records: list[dict[str, Any]]) -> list[str]:
    """Return what is known about the time of one page, one phrase for each machine."""
    said = []
    if runtime is not None:
        said.append(f"{spoken(runtime)} on this book's builder ({os.cpu_count()} CPU cores)")
    said += [f"{spoken(r['seconds'])} on {r['machine']} ({r['mode']} mode)" for r in records]
    if not any(record["gpu"] for record in records):
        said.append("not yet measured on a GPU")
    return said


def open_page(app: Sphinx, document: nodes.document) -> None:
    name = app.env.docname
    data = app.env.nb_metadata.get(name, {}).get("exec_data")  # type: ignore[attr-defined]
    title = next(iter(document.findall(nodes.title)), None)
    if data is None or title is None or name.startswith(NO_CHAPTERS):
        return
    path = Path(app.srcdir) / RECORDS
    records = json.loads(path.read_text()).get(name, []) if path.exists() else []
    options = app.config.html_theme_options
    repository = options["repository_url"].removeprefix("https://github.com/")
    branch = options["repository_branch"]
    colab = f"https://colab.research.google.com/github/{repository}/blob/{branch}/{name}.ipynb"
    line = nodes.paragraph(classes=["run-times"])
    line += nodes.reference("", "Open in Colab", refuri=colab, internal=False)
    line += nodes.Text(" · takes " + " · ".join(sentences(data["runtime"], records)))
    title.parent.insert(title.parent.index(title) + 1, line)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", open_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
