"""Serve MathJax from the book's own folder, so that formulas show without a network.

The file comes from the package ``sphinx-mathjax-offline``; without it MathJax's usual address is
used. This is not that package's own extension, which copies 20 MB where 2 MB do.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.fileutil import copy_asset_file


def source() -> Path | None:
    """Return the installed MathJax, if there is one."""
    try:
        files = distribution("sphinx-mathjax-offline").files or []
    except PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if f.name == "tex-svg.js"), None)


def use(app: Sphinx, config: Config) -> None:
    if source() is not None:
        config.mathjax_path = "mathjax/tex-svg.js"


def copy(app: Sphinx, error: Exception | None) -> None:
    file = source()
    if file is not None and error is None and app.builder.format == "html":
        target = Path(app.outdir) / "_static" / "mathjax"
        target.mkdir(parents=True, exist_ok=True)
        copy_asset_file(str(file), str(target))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", use)
    app.connect("build-finished", copy)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
