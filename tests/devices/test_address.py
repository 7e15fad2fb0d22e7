"""Addresses: every form, and that nothing of one can be taken for an option or by a shell."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgekd.devices.address import Address, parse_address
from edgekd.errors import UsageError

EXPECTED = "local, ssh://[USER@]HOST[:PORT] or adb:SERIAL, with ?python=PATH and &folder=PATH if need be"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("local", Address("local", "local")),
        ("local?", Address("local", "local")),
        ("ssh://kitchen", Address("ssh://kitchen", "ssh", "kitchen")),
        ("ssh://kitchen/", Address("ssh://kitchen/", "ssh", "kitchen")),
        ("ssh://pi@10.0.0.7:2222", Address("ssh://pi@10.0.0.7:2222", "ssh", "10.0.0.7", "pi", 2222)),
        ("ssh://_b.c-d@x_y.local", Address("ssh://_b.c-d@x_y.local", "ssh", "x_y.local", "_b.c-d")),
        ("ssh://[fe80::1%eth0]:22", Address("ssh://[fe80::1%eth0]:22", "ssh", "fe80::1%eth0", None, 22)),
        ("ssh://h:65535", Address("ssh://h:65535", "ssh", "h", None, 65535)),
        ("adb:R58M", Address("adb:R58M", "adb", "R58M")),
        ("adb:10.0.0.7:5555", Address("adb:10.0.0.7:5555", "adb", "10.0.0.7:5555")),
        (
            "adb:adb-R58._adb-tls-connect._tcp",
            Address("adb:adb-R58._adb-tls-connect._tcp", "adb", "adb-R58._adb-tls-connect._tcp"),
        ),
        (
            "ssh://h?python=~/my venv/bin/python&folder=/data/x",
            Address("ssh://h", "ssh", "h", python="~/my venv/bin/python", folder="/data/x"),
        ),
        ("ssh://h?folder=/a+b%26c%3Fd=e", Address("ssh://h", "ssh", "h", folder="/a+b&c?d=e")),
        ("adb:x?python=/Küche/py", Address("adb:x", "adb", "x", python="/Küche/py")),
    ],
)
def test_every_form(text, found):
    assert parse_address(text) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "Local", "ssh:", "ssh://", "ssh://@h", "ssh://h:", "ssh://h:0", "ssh://h:65536", "ssh://h:1x"),
        *("ssh://-oProxyCommand=x", "ssh://-l@h", "ssh://a b", "ssh://a;b", "ssh://$(x)", "ssh://a'b"),
        *("ssh://h/folder", "ssh://u:password@h", "ssh://h\n", "ssh://[::1", "ssh://ü", "http://h", "h"),
        *("adb:", "adb:-s", "adb:a b", "adb://x", "serial:x"),
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert str(caught.value) == f"'{text}' is no address of a device\n  try: {EXPECTED}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local?python=x", "`local` takes no python\n  try: run edgekd with the Python that is meant"),
        (
            "ssh://h?pyton=x",
            "'ssh://h?pyton=x' has the option 'pyton'; did you mean 'python'?\n  try: known: python, folder",
        ),
        ("ssh://h?python=", f"'ssh://h?python=' gives no path for 'python'\n  try: {EXPECTED}"),
        ("ssh://h?python", f"'ssh://h?python' gives no path for 'python'\n  try: {EXPECTED}"),
        ("ssh://h?folder=a%0Ab", f"'ssh://h?folder=a%0Ab' gives no path for 'folder'\n  try: {EXPECTED}"),
        ("ssh://h?folder=%00", f"'ssh://h?folder=%00' gives no path for 'folder'\n  try: {EXPECTED}"),
        (
            "ssh://h?folder=a&folder=b",
            f"'ssh://h?folder=a&folder=b' gives 'folder' twice\n  try: {EXPECTED}",
        ),
    ],
)
def test_options_that_are_off(text, message):
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert str(caught.value) == message


HOSTILE = st.text(st.sampled_from("ab1-._:@[]%/?&='\"$`;|<>(){}*~!#\\ \n\t\0é"), max_size=12)


@given(st.sampled_from(["ssh://", "ssh://u@", "ssh://[", "adb:", ""]), HOSTILE)
@example("ssh://", "-a")
@example("ssh://u@", "-a")
@example("adb:", "-a")
def test_nothing_of_an_address_means_anything_to_a_shell_or_looks_like_an_option(start, rest):
    try:
        found = parse_address(start + rest)
    except UsageError:
        return
    for part in (found.host, found.user or "", found.text):
        assert not part.startswith("-")
    for part in (found.host, found.user or ""):
        assert re.search(r"[^A-Za-z0-9._:%-]", part) is None
    assert found.kind == "local" or found.host
