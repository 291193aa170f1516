"""The files around the book agree with each other: contents, citations, versions, links."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.chapters import contents
from tools.owner import ROOT, repository, with_owner

PAGES = [page for part in contents() for page in part]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(*extras: str) -> list[Requirement]:
    listed = PROJECT["dependencies"] + [
        line for extra in extras for line in PROJECT["optional-dependencies"][extra]
    ]
    return [Requirement(line) for line in listed]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pairs}


def test_contents_are_complete() -> None:
    assert [page for page in PAGES if not page.exists()] == []
    written = {
        path
        for end in ("*.ipynb", "*.md")
        for path in (ROOT / "book").rglob(end)
        if path.name != "README.md" and ".ipynb_checkpoints" not in path.parts
    }
    assert written == set(PAGES)


def test_cited_keys_exist() -> None:
    text = (ROOT / "book" / "references.bib").read_text()
    keys = re.findall(r"^@\w+\{([\w-]+),", text, re.MULTILINE)
    assert len(keys) == len(set(keys))
    cited = {
        key.strip()
        for page in PAGES
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page.read_text())
        for key in group.split(",")
    }
    assert cited
    assert cited <= set(keys)


def test_references_say_where_they_are() -> None:
    entries = re.split(r"^@", (ROOT / "book" / "references.bib").read_text(), flags=re.MULTILINE)[
        1:
    ]
    for entry in entries:
        arxiv = re.search(r"eprint = \{(\d{4}\.\d{4,5})\}", entry)
        assert arxiv, entry
        assert f"https://arxiv.org/abs/{arxiv[1]}" in entry


def test_citation_file() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert {"title", "message", "authors", "repository-code"} <= set(citation)
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/workflows").iterdir()), ids=lambda p: p.name
)
def test_workflow(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"]["contents"] == "read"
    # YAML reads the key `on` as true.
    assert workflow.get("on", workflow.get(True))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name, job in workflow["jobs"].items():
        assert job["runs-on"], name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
            for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
                assert target in targets


def test_pre_commit_file() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ids = {hook["id"] for repo in hooks for hook in repo["hooks"]}
    assert {"ruff", "ruff-format", "codespell", "nbstripout"} <= ids


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("constraints.txt", ("test", "book", "dev", "reference")),
        ("constraints-next.txt", ("test",)),
    ],
)
def test_constraints_pin_what_is_required(file: str, extras: tuple[str, ...]) -> None:
    pinned = pins(file)
    for requirement in requirements(*extras):
        name = canonicalize_name(requirement.name)
        if name != "peftlab":
            assert name in pinned, f"{file} does not pin {name}"
            assert requirement.specifier.contains(pinned[name])


def test_environments_differ_as_they_should() -> None:
    now, following = pins("constraints.txt"), pins("constraints-next.txt")
    assert now["torch"] == following["torch"] == "2.13.0"
    assert now["transformers"].startswith("4.57.")
    assert int(following["transformers"].split(".")[0]) >= 5
    assert "adapters" in now
    assert "adapters" not in following


def test_colab_needs_no_other_versions() -> None:
    there = pins("constraints-colab.txt")
    for requirement in requirements():
        version = there.get(canonicalize_name(requirement.name))
        assert version is None or requirement.specifier.contains(version), requirement


def test_package_has_lower_bounds_only() -> None:
    for requirement in requirements():
        assert [clause.operator for clause in requirement.specifier] == [">="], requirement
    assert PROJECT["requires-python"] == ">=3.11"


def test_git_keeps_what_the_wheel_needs() -> None:
    """The wheel leaves out what git ignores, so nothing of the package may be ignored."""
    files = [
        str(path.relative_to(ROOT)) for path in (ROOT / "peftlab").rglob("*") if path.is_file()
    ]
    files = [file for file in files if "__pycache__" not in file]
    assert "peftlab/pocket/model.safetensors" in files
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    ignored = subprocess.run(
        command, cwd=ROOT, input="\n".join(files), capture_output=True, text=True, check=False
    )
    assert ignored.returncode == 1, ignored.stdout + ignored.stderr


def test_owner_is_in_step() -> None:
    subprocess.run([sys.executable, "-m", "tools.owner", "--check"], cwd=ROOT, check=True)


def test_every_link_follows_the_owner(tmp_path: Path) -> None:
    owner, name = repository()
    for file in ("_config.yml", "_toc.yml", "README.md", "CITATION.cff", "CONTRIBUTING.md"):
        shutil.copy(ROOT / file, tmp_path)
    shutil.copytree(ROOT / "book", tmp_path / "book")
    config = tmp_path / "_config.yml"
    links = re.compile(rf"(?:github\.com/|/github/|https://)([\w-]+)(?:\.github\.io)?/{name}\b")
    before = [path for path in tmp_path.rglob("*.*") if is_text(path) and links.search(read(path))]
    assert len(before) > 4
    config.write_text(read(config).replace(f"github.com/{owner}/", "github.com/some-body/"))
    command = [sys.executable, "-m", "tools.owner", "--root", str(tmp_path)]
    assert subprocess.run([*command, "--check"], cwd=ROOT, check=False).returncode != 0
    subprocess.run(command, cwd=ROOT, check=True)
    for path in before:
        assert set(links.findall(read(path))) == {"some-body"}, path
    subprocess.run([*command, "--check"], cwd=ROOT, check=True)


def is_text(path: Path) -> bool:
    return path.suffix in {".md", ".yml", ".cff", ".ipynb", ".toml"}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_owner_is_typed_once() -> None:
    owner, name = repository()
    tracked = subprocess.run(
        ["git", "ls-files", "--", ".", ":!book", ":!tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    generated = {"README.md", "CITATION.cff", "CONTRIBUTING.md", "_config.yml"}
    for file in set(tracked.stdout.split()) - generated:
        path = ROOT / file
        if path.suffix in {".md", ".yml", ".yaml", ".toml", ".py", ".txt", ""} and path.is_file():
            assert f"{owner}/{name}" not in read(path), f"{file} names the owner by hand"


def test_other_links_keep_their_owner() -> None:
    text = "https://github.com/else/other and https://OLD.github.io/peftlab/x"
    changed = with_owner(text, "new", "peftlab")
    assert changed == "https://github.com/else/other and https://new.github.io/peftlab/x"


def test_times_file() -> None:
    path = ROOT / "book" / "chapters.json"
    if not path.exists():
        pytest.skip("no chapter has been timed on a GPU yet")
    names = {str(page.relative_to(ROOT).with_suffix("")) for page in PAGES}
    for name, rows in json.loads(path.read_text()).items():
        assert name in names
        for row in rows:
            assert set(row) == {"machine", "gpu", "mode", "seconds"}


def test_ci_runs_the_commands_of_the_readme() -> None:
    commands = [
        line for line in read(ROOT / ".ci" / "run").splitlines() if line.startswith("make ")
    ]
    assert commands == ["make test", "make book"]
    assert all(command in read(ROOT / "README.md") for command in commands)


def test_nothing_large_is_tracked_but_our_encoders() -> None:
    """Other people's packages, weights and data stay out, even by mistake."""
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    files = [path for name in names.stdout.splitlines() if (path := ROOT / name).is_file()]
    large = {path for path in files if path.stat().st_size > 1e6}
    weights = ("peftlab/pocket", "book/models/desk")
    assert large <= {ROOT / folder / "model.safetensors" for folder in weights}
    assert not [path for path in files if path.suffix in {".whl", ".zip", ".gz", ".pt", ".bin"}]
