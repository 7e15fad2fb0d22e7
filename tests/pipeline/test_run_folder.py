import os
import signal
import subprocess
import sys
import time

import pytest

from edgekd.errors import RunFolderError
from edgekd.pipeline.run_folder import RunFolder, read_run, read_stage


def write(text):
    def work(folder):
        (folder / "result").write_text(text)

    return work


def never(_folder):
    raise AssertionError("the stage is made again")


@pytest.fixture
def run(tmp_path):
    with RunFolder(tmp_path / "run with spaces", "demo") as folder:
        yield folder


def test_a_finished_stage_is_found_again(run):
    made = run.make("teacher", {"seed": 1}, write("a"))
    found = run.make("teacher", {"seed": 1}, never)
    assert (made.reused, found.reused) == (False, True)
    assert found.path("result").read_text() == "a"
    assert made.digest == found.digest


def test_other_ingredients_are_another_stage(run):
    run.make("teacher", {"seed": 1}, write("a"))
    assert run.find("teacher", {"seed": 2}) is None
    assert run.make("teacher", {"seed": 2}, write("b")).path("result").read_text() == "b"
    assert run.make("teacher", {"seed": 1}, never).path("result").read_text() == "a"


@pytest.mark.parametrize("harm", ["change", "remove", "add"])
def test_a_result_that_was_altered_is_made_again(run, harm):
    stage = run.make("teacher", {}, write("a"))
    match harm:
        case "change":
            stage.path("result").write_text("b")
        case "remove":
            stage.path("result").unlink()
        case "add":
            stage.path("other").write_text("c")
    assert read_stage(stage.folder) is None
    again = run.make("teacher", {}, write("a"))
    assert not again.reused
    assert again.path("result").read_text() == "a"
    assert not again.path("other").exists()


def test_work_that_fails_leaves_its_checkpoints_and_no_result(run):
    def fails(folder):
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "epoch-3").write_text("state")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.make("teacher", {}, fails)
    assert run.find("teacher", {}) is None
    seen = []

    def resumes(folder):
        seen.append((folder / "checkpoints" / "epoch-3").read_text())
        write("a")(folder)

    stage = run.make("teacher", {}, resumes)
    assert seen == ["state"]
    assert sorted(path.name for path in stage.folder.iterdir()) == ["result", "stage.json"]


def test_a_new_result_makes_what_followed_the_old_one_stale(run):
    for name in ("teacher", "student", "graphs"):
        run.make(name, {"seed": 1}, write(name))
    assert list(read_run(run.path)[1]) == ["teacher", "student", "graphs"]
    run.make("student", {"seed": 2}, write("new"))
    assert list(read_run(run.path)[1]) == ["teacher", "student"]


def test_going_less_far_forgets_nothing(run):
    for name in ("teacher", "student"):
        run.make(name, {}, write(name))
    run.make("teacher", {}, never)
    assert list(read_run(run.path)[1]) == ["teacher", "student"]


def test_fresh_forgets_everything(tmp_path):
    with RunFolder(tmp_path / "run", "demo") as folder:
        folder.make("teacher", {}, write("a"))
    with RunFolder(tmp_path / "run", "demo", fresh=True) as folder:
        assert folder.find("teacher", {}) is None


def test_a_second_process_is_refused(run):
    with pytest.raises(RunFolderError) as caught, RunFolder(run.path, "demo"):
        pass
    assert str(caught.value) == (
        f"{run.path}: process {os.getpid()} is at work in this folder\n"
        "  try: wait for it, end it, or choose another folder with --out"
    )


def test_kill_9_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from edgekd.pipeline.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), 'demo'): print('in', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "in\n"
    with pytest.raises(RunFolderError, match=f"process {child.pid}"), RunFolder(tmp_path / "run", "demo"):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0.05)
    with RunFolder(tmp_path / "run", "demo"):
        pass


def test_a_folder_with_other_files_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunFolderError) as caught, RunFolder(tmp_path, "demo"):
        pass
    assert str(caught.value) == (
        f"{tmp_path}: holds other files and is no run folder\n  try: choose a new folder with --out"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(RunFolderError, match="is a file"), RunFolder(tmp_path / "a", "demo"):
        pass


def test_reading_names_the_damaged_stage(run):
    run.make("teacher", {}, write("a")).path("result").write_text("b")
    with pytest.raises(RunFolderError, match="the stage teacher is missing or was altered"):
        read_run(run.path)
