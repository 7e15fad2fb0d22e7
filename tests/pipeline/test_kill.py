"""kill -9 at random moments, then resume: the same report but for timings."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

TIMED_STAGES = ("measure-",)
TIMED_CHECKS = ("latency_",)


def command(recipe, out):
    return [sys.executable, "-m", "edgekd", "compress", str(recipe), "--out", str(out), "--json"]


def untimed(report):
    """What of a report must not depend on when and how often it was interrupted."""
    return {
        "verdict": report["verdict"],
        "checks": [check for check in report["checks"] if not check["name"].startswith(TIMED_CHECKS)],
        "rows": [{key: value for key, value in row.items() if key != "latency_ms"} for row in report["rows"]],
        "subjects": [
            {key: value for key, value in subject.items() if key != "latency"}
            for measurement in report["measurements"]
            for subject in measurement["subjects"]
        ],
        # TensorRT's builder gives other bytes each time, for the same graph
        "engines": [{**engine, "engine_sha256": None} for engine in report["engines"]],
        "not_done": report["not_done"],
        "keys": [
            (stage["name"], stage["key"])
            for stage in report["stages"]
            if not stage["name"].startswith(TIMED_STAGES)
        ],
    }


def kill_after(seconds, recipe, out):
    """Start the command, kill it and everything that it started, and say whether it was still at work."""
    child = subprocess.Popen(
        command(recipe, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
        return True
    return False


pytestmark = pytest.mark.xdist_group("whole run")


@pytest.mark.slow
def test_kill_9_and_resume_give_the_same_report(run, recipe_path, tmp_path):
    out = tmp_path / "killed"
    moments = random.Random(7)
    killed = [kill_after(moments.uniform(3, 9), recipe_path, out) for _ in range(3)]
    assert killed[0]
    time.sleep(0.1)
    done = subprocess.run(command(recipe_path, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = json.loads((run / "report.json").read_text())
    assert untimed(json.loads(done.stdout)) == untimed(expected)
    assert untimed(json.loads((out / "report.json").read_text())) == untimed(expected)
