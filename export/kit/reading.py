"""Files and tools of the device, read so that what is missing or broken is None.

`root` is where /proc, /sys and /etc are looked for: the tests give trees of recorded files.
"""

import os

TOOL_SECONDS = 10


def read_text(root, path):
    """The file's text, or None."""
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return None


def read_line(root, path):
    """The file's text without the space around it, or None where it is empty or missing."""
    return (read_text(root, path) or "").strip("\0 \t\r\n") or None


def read_number(root, path):
    """The whole number that is all of a file, or None."""
    return number(read_text(root, path))


def number(text, base=10):
    """The whole number that a text is, or None: no text of a device may stop a measurement."""
    try:
        return int(text, base)
    except (TypeError, ValueError):
        return None


def decimal(text):
    """The finite decimal number that a text is, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) < float("inf") else None


def entries(root, path):
    """Names in a folder, sorted; none where there is no such folder."""
    try:
        return sorted(os.listdir(os.path.join(root, path)))
    except OSError:
        return []


def values(text, key):
    """Values of the `key : value` lines of a text."""
    pairs = (line.partition(":") for line in (text or "").splitlines())
    return [value.strip() for found, _, value in pairs if found.strip() == key and value.strip()]


def has_tool(name):
    """Whether a program is on the path."""
    import shutil

    return shutil.which(name) is not None


def run_tool(command):
    """Standard output of a program, or None when it is missing, fails or hangs."""
    import subprocess

    if not has_tool(command[0]):
        return None
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TOOL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def usable_processors():
    """Numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
