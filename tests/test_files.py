import errno
import os

import pytest

from edgekd import files
from edgekd.errors import StorageError


def fail_while_writing(path, error):
    with files.writing(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_is_whole_or_absent(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(tmp_path / "a", ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    files.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt):
        fail_while_writing(path, KeyboardInterrupt)
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        files.write_text(tmp_path / "a", "text")
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: cannot write: No space left on device\n"
        "  try: free some space, or choose another folder with --out"
    )
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_digest_of_json_ignores_the_order_of_keys():
    assert files.sha256_json({"a": 1, "b": [2]}) == files.sha256_json({"b": [2], "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})
