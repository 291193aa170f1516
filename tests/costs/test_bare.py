"""Costs are measured with little installed: what a machine lent for an hour has."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = ("adapters", "datasets", "matplotlib", "peft", "pynvml", "seaborn", "seqeval", "sklearn")
PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({WITHOUT}))  # as if they were not installed
import peftlab.bench.step, peftlab.bench.throughput
from peftlab.cli import main
sys.exit(main(sys.argv[1:]))
"""
FILE = """
name = "counted"
kind = "cost"
question = "?"
encoders = ["minilm-l6"]
cells = [[1, 8]]
modes = ["train", "inference"]
device = "meta"
[methods]
full = "full"
lora = "lora-8"
"""


def test_a_cost_experiment_needs_no_library_beside_and_no_plots(tmp_path):
    file = tmp_path / "counted.toml"
    file.write_text(FILE)
    command = [sys.executable, "-c", PROGRAM, "run", str(file), "--folder", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 cells measured, 0 left" in done.stdout
