import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from peftlab.errors import TimingError
from peftlab.timing import machine

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


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


def test_processes_are_read():
    assert machine.parse_processes("") == {}
    text = "812, /usr/bin/python, old\n9, [Not Found]\n[Insufficient Permissions], -\n"
    assert machine.parse_processes(text) == {812: "/usr/bin/python, old", 9: "[Not Found]"}


def test_a_percentage_is_read_where_it_is_told():
    assert machine.parse_percent("37") == 37
    assert machine.parse_percent("[N/A]") is None
    assert machine.parse_percent("") is None


MIB = 2**20


@pytest.mark.parametrize(
    ("processes", "foreign", "busy", "said"),
    [
        # this process, number 7, is in the list: the list is right
        ({7: "python"}, 500 * MIB, 0.0, None),
        ({7: "python"}, 3000 * MIB, 2.0, None),  # a desktop
        ({7: "python", 8: "train"}, 900 * MIB, 0.0, "by train with id 8"),
        # and yet another container may be hidden
        ({7: "python"}, 500 * MIB, 80.0, "80 % busy"),
        # a container that hides who computes
        ({}, 500 * MIB, 0.0, None),
        ({}, 500 * MIB, None, None),
        ({}, 4000 * MIB, 0.0, "4000 MiB are in use"),
        ({}, 500 * MIB, 60.0, "60 % busy"),
        # a container where processes have the host's ids
        ({4123: "[Not Found]"}, 500 * MIB, 0.0, None),
        ({4123: "[Not Found]"}, 4000 * MIB, 0.0, "4000 MiB are in use"),
        ({4123: "[Not Found]", 4200: "[Not Found]"}, 500 * MIB, 0.0, "2 processes"),
    ],
)
def test_who_shares_a_gpu(processes, foreign, busy, said):
    found = machine.who_shares(processes, 7, foreign, busy)
    assert said in found if said else found is None


class Gpu:
    """What torch and nvidia-smi say of a GPU with one torch process, and perhaps another."""

    def __init__(self, monkeypatch, answers):
        self.answers, self.asked = answers, []
        for name, value in {
            "synchronize": None,
            "mem_get_info": (79 * 1024 * MIB, 80 * 1024 * MIB),
            "memory_reserved": 512 * MIB,
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda index, value=value: value)
        monkeypatch.setattr(torch, "zeros", lambda size, device: self.asked.append(device))
        monkeypatch.setattr(machine, "identity", lambda index: "GPU-1234")
        monkeypatch.setattr(machine, "sleep", self.asked.append)
        monkeypatch.setattr(machine, "_output", self.output)

    def output(self, *command):
        assert command[:2] == ("nvidia-smi", "--id=GPU-1234")
        self.asked.append(command[2])
        return self.answers.get(command[2].partition("=")[0].removeprefix("--query-"))


def test_a_shared_gpu_is_refused(monkeypatch):
    own = f"{machine.os.getpid()}, python"
    gpu = Gpu(monkeypatch, {"compute-apps": own, "gpu": "0"})
    machine.refuse_shared()
    # the process shows itself, and rests, before others are looked for
    assert gpu.asked[:2] == ["cuda:0", machine.SETTLE]
    gpu.answers["compute-apps"] = f"{own}\n1, train"
    with pytest.raises(TimingError, match=r"GPU 0 is shared \(by train with id 1\)"):
        machine.refuse_shared()
    gpu.answers |= {"compute-apps": own, "gpu": "50"}
    with pytest.raises(TimingError, match="50 % busy"):
        machine.refuse_shared()


def test_what_a_process_did_itself_may_show_for_some_seconds(monkeypatch):
    gpu = Gpu(monkeypatch, {"compute-apps": f"{machine.os.getpid()}, python", "gpu": "50"})

    def rest(seconds):
        gpu.asked.append(seconds)
        if gpu.asked.count(machine.SETTLE) == machine.LOOKS:
            gpu.answers["gpu"] = "0"

    monkeypatch.setattr(machine, "sleep", rest)
    machine.refuse_shared()
    assert gpu.asked.count(machine.SETTLE) == machine.LOOKS


def test_without_nvidia_smi_memory_tells(monkeypatch):
    Gpu(monkeypatch, {})
    machine.refuse_shared()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (20 * 2**30, 80 * 2**30))
    with pytest.raises(TimingError, match="60928 MiB are in use"):
        machine.refuse_shared()


def test_clocks_are_what_changes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.clocks() is None
    found = machine.parse_gpu("NVIDIA X, 570.1, 81559, 700.00, [N/A], 2619, 1980, 31")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "gpu", lambda index: found)
    assert machine.clocks() == {
        "clock_mhz": None,
        "memory_clock_mhz": 2619,
        "temperature_c": 31,
    }


@pytest.mark.gpu
@needs_gpu
def test_another_process_on_this_gpu_is_seen():
    machine.refuse_shared()
    hold = (
        "import torch; x = torch.zeros(2**30, device='cuda'); print('ready', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "ready\n"
            with pytest.raises(TimingError, match="GPU 0 is shared"):
                machine.refuse_shared()
        finally:
            other.stdin.close()


@pytest.mark.gpu
@needs_gpu
def test_the_gpu_is_described_in_json_types():
    found = machine.describe()["gpu"]
    assert json.loads(json.dumps(found)) == found
    assert set(machine.clocks()) == set(machine.CHANGING)


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


@pytest.mark.parametrize(("told", "dirty"), [("0123abcd", False), ("0123abcd-dirty", True)])
def test_a_copy_may_be_told_its_commit(copy_in_git, monkeypatch, told, dirty):
    monkeypatch.setenv("PEFTLAB_COMMIT", told)
    assert machine.git() == {"commit": "0123abcd", "dirty": dirty}  # the package is not tracked
    git(copy_in_git, "add", ".")
    git(copy_in_git, "commit", "-qm", "first")
    machine._commit.cache_clear()
    assert machine.git()["commit"] == git(copy_in_git, "rev-parse", "HEAD")  # git knows better
