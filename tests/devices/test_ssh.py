"""ssh to a real sshd on loopback: keys, hosts, shells, and a plug that is pulled in the middle."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.devices.address import parse_address
from edgekd.devices.channel import DroppedError, UnreachableError
from edgekd.devices.open_device import open_board, open_device
from edgekd.devices.remote import RemoteDevice
from edgekd.devices.ssh import SshChannel
from edgekd.errors import DeviceError, EdgekdError, MissingError, UsageError
from tests.devices.boards import NOTHING, job_of, kept_on, kit_that, processes_of
from tests.devices.sshd import WHY_NOT, Sshd, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason=WHY_NOT)


@pytest.fixture
def own_sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """An sshd of one test, not started yet."""
    (tmp_path / "an sshd").mkdir()
    sshd = Sshd(tmp_path / "an sshd")
    monkeypatch.setenv("EDGEKD_SSH", sshd.command)
    yield sshd
    sshd.stop()


def device_at(address: str, folder: Path, kit: Path | None = None, **changes: object) -> RemoteDevice:
    whole = {
        "kit": kit or kit_that(folder),
        "folder": str(folder / "the board"),
        "reconnect_s": 10,
        **changes,
    }
    return RemoteDevice(SshChannel(parse_address(address)), **whole)


def run_once(address: str, folder: Path, **changes: object) -> None:
    """A job of a device that is closed after it, and leaves nothing."""
    device = device_at(address, folder, **changes)
    try:
        device.run(job_of(folder), timeout_s=20)
    finally:
        device.close()
        assert_gone(device)
    assert kept_on(folder / "the board") == NOTHING


def assert_gone(device: RemoteDevice) -> None:
    """Neither the connection in the background nor its folder is left."""
    place = device._link._channel._folder
    end = time.monotonic() + 5
    while processes_of(str(place)) and time.monotonic() < end:
        time.sleep(0.02)
    assert processes_of(str(place)) == []
    assert not place.exists()


def refusal(kind: type[EdgekdError], address: str, folder: Path, **changes: object) -> str:
    with pytest.raises(EdgekdError) as caught:
        run_once(address, folder, **changes)
    assert type(caught.value) is kind
    assert (caught.value.exit_code, caught.value.where) == (3, address)
    return str(caught.value).removeprefix(f"{address}: ")


def login(sshd: Sshd) -> str:
    """What `ssh` takes for this sshd."""
    return f"-p {sshd.port} {sshd.address.removeprefix('ssh://').partition(':')[0]}"


def test_a_job_ends_with_its_connection(sshd, tmp_path):
    run_once(sshd.address, tmp_path)


def test_an_alias_of_the_configuration(sshd, tmp_path):
    run_once("ssh://kitchen", tmp_path)


def test_the_usual_way_in(sshd, tmp_path, monkeypatch):
    place = f"{sshd.address}?python={sys.executable}&folder={tmp_path / 'usual'}"
    with open_device(place) as device:
        assert (device.name, device.facts("null").machine) == (sshd.address, os.uname().machine)
    with open_board(place) as board:
        assert (board.unlock(), board.clean()) == (None, str(tmp_path / "usual"))
    assert not (tmp_path / "usual").exists()


def test_a_strange_host_key(sshd, tmp_path):
    before = (sshd.folder / "known_hosts").read_text()
    try:
        (sshd.folder / "known_hosts").write_text("")
        assert refusal(DeviceError, sshd.address, tmp_path) == (
            f"its host key is not known here\n  try: compare the key that `ssh {login(sshd)}` shows with the "
            "board's own, and accept it there once"
        )
        assert (sshd.folder / "known_hosts").read_text() == ""
    finally:
        (sshd.folder / "known_hosts").write_text(before)


def test_a_changed_host_key(sshd, tmp_path):
    try:
        sshd.trust((sshd.folder / "client_key.pub").read_text())
        assert refusal(DeviceError, sshd.address, tmp_path) == (
            "its host key is not the one that is known: it was installed anew, or somebody stands between\n"
            "  try: compare the new key with the board's own; if it is right: ssh-keygen -R "
            f"'[127.0.0.1]:{sshd.port}'; ssh {login(sshd)} once"
        )
    finally:
        sshd.trust((sshd.folder / "host_key.pub").read_text())


def test_a_wrong_key_of_ours(sshd, tmp_path):
    keys = sshd.folder / "authorized_keys"
    before = keys.read_text()
    try:
        keys.write_text((sshd.folder / "host_key.pub").read_text())
        assert refusal(DeviceError, sshd.address, tmp_path) == (
            f"it refuses the login\n  try: ssh-copy-id {login(sshd)}, or name the user and the key for it in "
            "~/.ssh/config"
        )
    finally:
        keys.write_text(before)


def test_a_user_who_is_not_there(sshd, tmp_path):
    address = f"ssh://no-such-user@127.0.0.1:{sshd.port}"
    assert refusal(DeviceError, address, tmp_path).startswith("it refuses the login\n")


def test_a_configuration_that_ssh_refuses(sshd, tmp_path, monkeypatch):
    (tmp_path / "config").write_text("NoSuchOption yes\n")
    monkeypatch.setenv("EDGEKD_SSH", f"ssh -F {tmp_path}/config")
    assert refusal(DeviceError, "ssh://kitchen", tmp_path) == (
        "ssh refuses its own configuration\n  try: ssh -G kitchen shows what it reads"
    )


def test_a_port_where_nobody_listens(own_sshd, tmp_path):
    assert refusal(UnreachableError, own_sshd.address, tmp_path) == (
        "it refuses connections\n  try: start sshd there, or name its port: ssh://HOST:PORT"
    )


def test_a_host_that_is_not_there(sshd, tmp_path):
    assert refusal(UnreachableError, "ssh://no-such-host.invalid", tmp_path) == (
        "there is no host of that name\n  try: look for a typing error; ping no-such-host.invalid"
    )


def test_a_port_of_another_server(sshd, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        address = f"ssh://127.0.0.1:{server.getsockname()[1]}"
        assert refusal(UnreachableError, address, tmp_path) == (
            "it ends the connection before a login\n"
            "  try: look whether that port is sshd's, and at its log: journalctl -u ssh"
        )
        thread.join()


@pytest.mark.parametrize(
    ("variable", "kind", "message"),
    [
        (
            "no-such-ssh -F x",
            MissingError,
            "there is no program no-such-ssh\n  try: install it: apt install no-such-ssh",
        ),
        ("ssh -F 'x", UsageError, "EDGEKD_SSH: cannot be read: No closing quotation\n  try: EDGEKD_SSH=ssh"),
    ],
)
def test_a_program_that_cannot_be_run(tmp_path, monkeypatch, variable, kind, message):
    monkeypatch.setenv("EDGEKD_SSH", variable)
    device = device_at("ssh://kitchen", tmp_path)
    with pytest.raises(kind) as caught:
        device.run(job_of(tmp_path), timeout_s=20)
    device.close()
    assert str(caught.value) == message
    assert not device._link._channel._folder.exists()


def forced(sshd: Sshd, shell: str) -> None:
    """Let a script stand in for the login shell of the board."""
    script = sshd.folder.parent / "shell"
    script.write_text(f"#!/bin/sh\n{shell}\n")
    script.chmod(0o755)
    config = sshd.folder / "sshd_config"
    config.write_text(f'{config.read_text()}ForceCommand "{script}"\n')
    sshd.start()


def test_no_python3_on_the_board(own_sshd, tmp_path):
    forced(own_sshd, 'PATH=/nonexistent; eval "$SSH_ORIGINAL_COMMAND"')
    text = refusal(DeviceError, own_sshd.address, tmp_path)
    assert re.fullmatch(
        r"there is no python3 on the board: .*python3: .*not found\n"
        r"  try: on a Debian or Ubuntu board: apt install python3",
        text,
    )


def test_a_python3_that_does_not_work(own_sshd, tmp_path):
    forced(own_sshd, "echo 'python3: error while loading shared libraries' >&2; exit 1")
    assert refusal(DeviceError, own_sshd.address, tmp_path) == (
        "python3 on the board ended with exit code 1: python3: error while loading shared libraries\n"
        "  try: python3 of 3.8 or newer is needed there"
    )


def test_a_login_shell_that_runs_nothing(own_sshd, tmp_path):
    forced(own_sshd, "echo This account is for files only.")
    assert refusal(DroppedError, own_sshd.address, tmp_path, reconnect_s=0.5) == (
        "the reply was cut off; it was tried again for 0.5 s\n"
        "  try: look at the connection, and whether the login shell there runs what it is told"
    )


def test_a_login_shell_that_is_chatty(own_sshd, tmp_path):
    forced(
        own_sshd,
        'echo Welcome; printf "edgekd-0 9\\n"; echo Oh >&2\n'
        'eval "$SSH_ORIGINAL_COMMAND"; code=$?; echo Bye; exit $code',
    )
    run_once(own_sshd.address, tmp_path)


def test_a_user_whose_configuration_wants_other_things(sshd, tmp_path, monkeypatch):
    config = tmp_path / "config"
    own = "RequestTTY force\nRemoteCommand bash -i\nLocalForward 1 x:1\nControlMaster no\nLogLevel QUIET\n"
    config.write_text(f"{own}StrictHostKeyChecking no\n{(sshd.folder / 'ssh_config').read_text()}")
    monkeypatch.setenv("EDGEKD_SSH", f"ssh -F '{config}'")
    run_once(sshd.address, tmp_path)


def test_the_connection_is_cut_in_the_middle_and_comes_back(own_sshd, tmp_path):
    own_sshd.start()
    runs, events = tmp_path / "runs", []
    kit = kit_that(tmp_path, f"open({str(runs)!r}, 'a').write('x'); time.sleep(3); write()")
    device = device_at(own_sshd.address, tmp_path, kit, on_event=events.append)
    thread = threading.Thread(target=cut_once_it_runs, args=(own_sshd, runs))
    thread.start()
    device.run(job_of(tmp_path), timeout_s=20)
    thread.join()
    device.close()
    assert_gone(device)
    assert (runs.read_text(), kept_on(tmp_path / "the board")) == ("x", NOTHING)
    assert len(events) >= 2
    assert all(event.startswith(own_sshd.address) for event in events)
    assert events[-1] == f"{own_sshd.address}: it refuses connections; it is tried again"


def cut_once_it_runs(sshd: Sshd, runs: Path) -> None:
    wait_for(runs)
    sshd.cut()
    time.sleep(2)
    sshd.start()


def wait_for(path: Path, within_s: float = 20) -> None:
    end = time.monotonic() + within_s
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_connection_is_cut_and_stays_away(own_sshd, tmp_path):
    own_sshd.start()
    kit = kit_that(tmp_path, f"open({str(tmp_path / 'runs')!r}, 'a'); time.sleep(60)")
    device = device_at(own_sshd.address, tmp_path, kit, reconnect_s=0.8, lease_s=1.5)
    thread = threading.Thread(target=lambda: (wait_for(tmp_path / "runs"), own_sshd.cut()))
    thread.start()
    with pytest.raises(DroppedError) as caught:
        device.run(job_of(tmp_path), timeout_s=60)
    thread.join()
    device.close()
    assert_gone(device)
    assert str(caught.value) == (
        f"{own_sshd.address}: it refuses connections; it was tried again for 0.8 s\n"
        "  try: start sshd there, or name its port: ssh://HOST:PORT"
    )
    wait_until_idle(tmp_path / "the board")


def wait_until_idle(board: Path, within_s: float = 20) -> None:
    """Until no process of a job runs there."""
    end = time.monotonic() + within_s
    while processes_of(str(board)):
        assert time.monotonic() < end
        time.sleep(0.05)


def run_once_it_is_free(device: RemoteDevice, folder: Path, within_s: float = 20) -> None:
    """Run a job as soon as the board's lock can be had."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(DeviceError):
            device.run(job_of(folder), timeout_s=20)
            return
        time.sleep(0.3)
    raise AssertionError("the lock does not run out")


HOST = """
import signal, sys
from pathlib import Path
from tests.devices.boards import job_of
from tests.devices.test_ssh import device_at
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
device = device_at(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[2]) / "kit", lease_s=1.5)
(Path(sys.argv[2]) / "ssh.txt").write_text(str(device._link._channel._folder))
try:
    device.run(job_of(Path(sys.argv[2])), timeout_s=float(sys.argv[3]))
finally:
    device.close()
"""


def host_that_ends(sshd: Sshd, folder: Path, how: signal.Signals, timeout_s: float) -> bytes:
    """Another edgekd that is ended while its job runs; what it said."""
    kit_that(folder, f"open({str(folder / 'runs')!r}, 'a'); time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-c", HOST, sshd.address, str(folder), str(timeout_s)],
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        wait_for(folder / "runs")
        process.send_signal(how)
        return process.communicate(timeout=30)[1]


def test_a_host_that_is_interrupted_ends_its_job(sshd, tmp_path):
    assert b"KeyboardInterrupt" in host_that_ends(sshd, tmp_path, signal.SIGINT, 60)
    assert kept_on(tmp_path / "the board") == NOTHING


def test_after_a_host_was_killed_the_board_ends_its_job_and_the_lock_runs_out(sshd, tmp_path):
    host_that_ends(sshd, tmp_path, signal.SIGKILL, 4)
    device = device_at(sshd.address, tmp_path, kit_that(tmp_path / "other"))
    with pytest.raises(DeviceError, match=r": it is measured by .*, for [0-5] s more at most\n"):
        device.run(job_of(tmp_path), timeout_s=20)
    wait_until_idle(tmp_path / "the board")
    run_once_it_is_free(device, tmp_path)
    device.close()
    shutil.rmtree(
        (tmp_path / "ssh.txt").read_text()
    )  # a killed process cannot, and its connection ends later
    assert_gone(device)
    assert kept_on(tmp_path / "the board") == NOTHING
