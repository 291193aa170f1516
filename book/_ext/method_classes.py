"""A directive that documents the settings class of every method in the registry.

With it a new method stands in the API reference without a line there.
"""

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class MethodClasses(SphinxDirective):
    """``.. method-classes::``: one autoclass for each registered method, in order of name."""

    def run(self) -> list[nodes.Node]:
        """Return what the autoclass directives make."""
        from peftlab import methods

        lines = []
        for cls in sorted(methods.classes().values(), key=lambda cls: cls.__name__):
            lines += [f".. autoclass:: {cls.__module__}.{cls.__name__}", "   :members:", ""]
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, source=__file__), self.content_offset, holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("method-classes", MethodClasses)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
