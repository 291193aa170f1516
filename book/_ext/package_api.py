"""Directives that write the API reference, so that a new name or module needs no line there.

``public-names`` documents what ``peftlab`` offers by itself, every method of the registry included;
``package-modules`` documents everything else, module by module. Each object stands in one place.
"""

from importlib import import_module
from inspect import isbuiltin, isclass
from pkgutil import resolve_name, walk_packages
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective


def public() -> dict[str, Any]:
    """Return the public objects by name: the package's own list and the registry's classes."""
    import peftlab
    from peftlab import methods

    found = {name: getattr(peftlab, name) for name in peftlab.__all__}
    return found | {cls.__name__: cls for cls in methods.classes().values()}


def modules() -> list[str]:
    """Return the names of all modules of the package."""
    import peftlab

    walked = walk_packages(peftlab.__path__, "peftlab.")
    return sorted(m.name for m in walked if not m.name.rpartition(".")[2].startswith("_"))


class PackageDirective(SphinxDirective):
    """Common to both: reStructuredText made by a method, parsed where the directive stands."""

    def source(self) -> list[str]:
        """Return the lines to parse."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the lines."""
        holder = nodes.container()
        lines = StringList(self.source(), source=self.get_source_info()[0])
        self.state.nested_parse(lines, self.content_offset, holder)
        return holder.children


class PublicNames(PackageDirective):
    """``.. public-names::`` with ``:kind: functions``, ``methods`` or ``classes``."""

    option_spec: ClassVar = {"kind": lambda text: directives.choice(text, tuple(KINDS))}

    def source(self) -> list[str]:
        """Document the chosen kind, in order of name."""
        wanted = KINDS[self.options["kind"]]
        lines = []
        for name, value in sorted(public().items()):
            if wanted(value):
                what = "autoclass" if isclass(value) else "autofunction"
                members = ["   :members:"] if isclass(value) else []
                lines += [f".. {what}:: {value.__module__}.{name}", *members, ""]
        return lines


class PackageModules(PackageDirective):
    """``.. package-modules::``: every module, with what is defined there and not public."""

    def source(self) -> list[str]:
        """Document the modules in order of name."""
        elsewhere = {id(value) for value in public().values()}
        lines = []
        for name in modules():
            module = import_module(name)
            members = [
                member
                for member, value in vars(module).items()
                if not member.startswith("_")
                and getattr(value, "__module__", None) == name
                and id(value) not in elsewhere
            ]
            listed = [f"   :members: {', '.join(members)}"] if members else []
            lines += [f".. rubric:: {name}", "", f".. automodule:: {name}", *listed, ""]
        return lines


def skip(app: Sphinx, what: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out a builtin that is some class's default value: it is documented by Python."""
    return True if what == "class" and isbuiltin(value) else None


def by_its_home(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """Resolve a reference to a name where it is offered, to where it is defined."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("peftlab."):
        return None
    try:
        value = resolve_name(target)
        home = f"{value.__module__}.{value.__qualname__}"
    except (AttributeError, ImportError):
        return None
    domain, page = env.get_domain("py"), node.get("refdoc", "")
    return domain.resolve_xref(env, page, app.builder, node["reftype"], home, node, text)


def is_method(value: Any) -> bool:
    from peftlab.methods import Method

    return isclass(value) and issubclass(value, Method)


KINDS = {
    "functions": lambda value: not isclass(value),
    "methods": is_method,
    "classes": lambda value: isclass(value) and not is_method(value),
}


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("package-modules", PackageModules)
    app.connect("missing-reference", by_its_home)
    app.connect("autodoc-skip-member", skip)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
