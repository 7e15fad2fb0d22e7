"""Two processes fine-tune a quantized student whose scales and batch norm learn, and rest in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_scales_and_statistics_that_rest_do_not_stop_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.two_quantized", str(tmp_path)]
    root = Path(__file__).parents[2]
    program = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert program.returncode == 0, program.stderr
    found = json.loads(program.stdout)
    assert found["epochs"] == [1, 2, 3]
    assert found["losses"][-1] < found["losses"][0]
    assert found["best"] > 0
    assert found["moved"]
    assert found["folded"]
    assert found["top1"] == found["again"]
