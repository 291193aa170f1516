import json
import subprocess
import sys
from pathlib import Path

import pytest

from peftlab.timing import machine


def test_the_machine_is_described_in_json_types():
    found = machine.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert found["torch_threads"] >= 1


def test_flags_are_those_of_the_processor():
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        pytest.skip("needs /proc/cpuinfo")
    words = set(info.read_text().split())
    assert set(machine.describe()["cpu_flags"]) == words & set(machine.FLAGS)


def test_versions_are_those_that_are_imported():
    import torch
    import transformers

    found = machine.versions()
    assert found["torch"] == torch.__version__
    assert found["transformers"] == transformers.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_gpu_line_is_read_and_hidden_values_are_none():
    line = "NVIDIA X, 570.1, 81559, 700.00, [N/A], 2619, 1980, 31"
    found = machine.parse_gpu(line)
    assert found["name"] == "NVIDIA X"
    assert found["driver"] == "570.1"
    assert found["memory_mib"] == 81559
    assert found["power_limit_w"] == 700
    assert found["clock_mhz"] is None
    assert found["temperature_c"] == 31


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def copy_in_git(tmp_path, monkeypatch):
    """A repository that holds a package, from which git() then believes to run."""
    package = tmp_path / "package"
    (package / "timing").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(machine, "__file__", str(package / "timing" / "machine.py"))
    machine._commit.cache_clear()
    yield tmp_path
    machine._commit.cache_clear()


def test_commit_and_dirt_of_the_package(copy_in_git):
    git(copy_in_git, "add", ".")
    git(copy_in_git, "commit", "-qm", "first")
    (copy_in_git / "record.json").write_text("{}")  # beside the package: no dirt
    assert machine.git() == {"commit": git(copy_in_git, "rev-parse", "HEAD"), "dirty": False}
    (copy_in_git / "package" / "__init__.py").write_text("changed = 1")
    machine._commit.cache_clear()
    assert machine.git()["dirty"] is True


def test_an_installed_copy_has_no_commit(copy_in_git):
    git(copy_in_git, "commit", "-qm", "empty", "--allow-empty")  # the package is not tracked
    assert machine.git() == {"commit": None, "dirty": None}
