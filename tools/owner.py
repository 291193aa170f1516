"""Carry the repository's owner, written once in _config.yml, into every link that names it.

It rewrites links and nothing else: what a set-up cell says otherwise is in tools/strip.py.

    python -m tools.owner            rewrite
    python -m tools.owner --check    say which files are out of step, and fail
"""

import argparse
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FILES = ("README.md", "CITATION.cff", "CONTRIBUTING.md", "book/**/*.md", "book/**/*.ipynb")


def repository(root: Path = ROOT) -> tuple[str, str]:
    """Return the owner and the name of the repository that _config.yml names."""
    url = yaml.safe_load((root / "_config.yml").read_text())["repository"]["url"]
    match = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+)", url)
    if match is None:
        sys.exit(f"_config.yml: repository.url is {url!r}; write https://github.com/<owner>/<name>")
    return match[1], match[2]


def with_owner(text: str, owner: str, name: str) -> str:
    """Return the text with every GitHub, Colab and Pages link to ``name`` naming ``owner``."""
    name = re.escape(name)
    text = re.sub(rf"(github\.com/|/github/)[\w.-]+(?=/{name}\b)", rf"\g<1>{owner}", text)
    return re.sub(rf"(https://)[\w-]+(?=\.github\.io/{name}\b)", rf"\g<1>{owner}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args()
    owner, name = repository(arguments.root)
    stale = []
    for path in sorted({path for glob in FILES for path in arguments.root.glob(glob)}):
        text = path.read_text(encoding="utf-8")
        changed = with_owner(text, owner, name)
        if changed != text:
            stale.append(str(path.relative_to(arguments.root)))
            if not arguments.check:
                path.write_text(changed, encoding="utf-8")
    if stale and arguments.check:
        sys.exit(
            f"links name another owner than _config.yml in {', '.join(stale)}: run `make links`"
        )


if __name__ == "__main__":
    main()
