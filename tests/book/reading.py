"""What the checks look for in a notebook, as functions, so that they can be tested themselves."""

import ast
import re
from importlib import import_module
from pkgutil import resolve_name

from nbformat import NotebookNode

TYPED_NUMBERS = "typed-numbers"
# A percentage, a score such as 0.87 or 87.3, a ratio such as 1.9x: what results look like.
RESULT = re.compile(r"\d\s?%|\bpercent\b|(?<![\w.])\d{1,3}\.\d+(?![\w.]*\w)|\d\s?[x×](?!\w)")
NOT_PROSE = re.compile(
    r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|`[^`]*`|\]\([^)]*\)|https?://\S+|\{[\w:]+\}`[^`]*`",
    re.DOTALL,
)
VERSIONS = re.compile(r"\b(?:Python|transformers|torch|PyTorch|SQuAD|version)\s+v?\d+(?:\.\d+)+")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def typed_results(notebook: NotebookNode) -> list[str]:
    """Return what looks like a result typed into prose, in cells that are not marked for it."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and TYPED_NUMBERS not in cell.metadata.get("tags", []):
            prose = VERSIONS.sub("", NOT_PROSE.sub(" ", cell.source))
            found += [match.group() for match in RESULT.finditer(prose)]
    return found


def python(notebook: NotebookNode) -> ast.Module:
    """Return the syntax tree of the code, without the lines that are IPython's own."""
    lines = []
    for cell in code_cells(notebook):
        for line in cell.source.splitlines():
            magic = line.lstrip().startswith(("!", "%"))
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}pass" if magic else line)
    return ast.parse("\n".join(lines))


def names_used(notebook: NotebookNode) -> set[str]:
    """Return the dotted names of peftlab that the code imports or takes from what it imported."""
    tree, bound, used = python(notebook), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                used.add(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                used.add(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            path, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                path.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in bound:
                used.add(".".join([bound[inner.id], *reversed(path)]))
    return {name for name in used if name.split(".")[0] == "peftlab"}


def fault_of_name(dotted: str) -> str | None:
    """Say what is wrong with a name of peftlab as the book may use it, or None.

    Public is what has no underscore, exists, and is in the ``__all__`` of the package that it is
    taken from, if that has one.
    """
    parts = dotted.split(".")
    if any(part.startswith("_") for part in parts[1:]):
        return f"{dotted} is private"
    try:
        resolve_name(dotted)
    except (AttributeError, ImportError):
        return f"{dotted} does not exist"
    for end in range(1, len(parts)):
        try:
            module = import_module(".".join(parts[:end]))
        except ImportError:
            return None
        listed = getattr(module, "__all__", None)
        if listed is None or parts[end] in listed:
            continue
        try:
            import_module(".".join(parts[: end + 1]))
        except ImportError:
            return None if is_method(dotted) else f"{dotted} is not in {module.__name__}.__all__"
    return None


def is_method(dotted: str) -> bool:
    """Tell whether this is a method of the registry: the package offers those too."""
    from peftlab import methods

    return dotted.split(".")[:2][-1] in {cls.__name__ for cls in methods.classes().values()}
