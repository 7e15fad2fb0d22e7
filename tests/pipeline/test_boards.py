"""A run whose target lies on a board: measured there over a real ssh, and judged by what was found there."""

import json
import shutil
import sys

import pytest
from typer.testing import CliRunner

from edgekd.cli.app import app
from tests.devices.sshd import WHY_NOT, Sshd, is_installed

pytestmark = pytest.mark.xdist_group("whole run")


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_a_run_is_measured_on_its_board(run, tmp_path, monkeypatch):
    if not is_installed():
        pytest.skip(WHY_NOT)
    copy = shutil.copytree(run, tmp_path / "a copy")
    (folder := tmp_path / "ssh d").mkdir()
    sshd = Sshd(folder)
    sshd.start()
    monkeypatch.setenv("EDGEKD_SSH", sshd.command)
    try:
        address = f"{sshd.address}?python={sys.executable}&folder={folder}/board"
        result = bench(copy, "--device", f"local={address}", "--json")
    finally:
        sshd.stop()
    report = json.loads(result.stdout)
    assert (result.exit_code, report["verdict"]) == (0, "pass"), result.output
    (measured,) = report["measurements"]
    before = json.loads((run / "report.json").read_text())["measurements"][0]
    assert (measured["device"], before["device"]) == (sshd.address, "local")
    for there, here in zip(measured["subjects"], before["subjects"], strict=True):
        # The answers are the board's own; it is this machine, so that they are the same.
        assert there["predictions_sha256"] == here["predictions_sha256"]
        assert there["graph_sha256"] == here["graph_sha256"]
    assert list((folder / "board" / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            "ssh://kitchen",
            "error: {run}: a run's targets have profiles: which one is at that address?\n"
            "  try: --device PROFILE=ADDRESS, such as raspberry-pi-5-8gb=ssh://pi@kitchen\n",
        ),
        (
            "rock=ssh://kitchen",
            "error: {run}: no target of the run has the profile 'rock'\n"
            "  try: its targets are local, nvidia-l4: --device PROFILE=ADDRESS\n",
        ),
    ],
)
def test_addresses_that_are_no_targets(run, device, message):
    result = bench(run, "--device", device)
    assert (result.exit_code, result.stderr) == (2, message.format(run=run))
