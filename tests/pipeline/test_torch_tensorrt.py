"""The stage `torch-tensorrt`, with a stand-in for the compiler: there is no GPU here."""

import shutil

import pytest
import torch

from edgekd.errors import MissingError
from edgekd.pipeline import export
from edgekd.pipeline.compress import compress
from edgekd.pipeline.run_folder import read_run
from edgekd.quantization.network import QuantizedNetwork
from tests.tiny import Listener

pytestmark = pytest.mark.xdist_group("whole run")


def test_the_student_that_ships_is_compiled_once(run, recipe_path, tmp_path, monkeypatch):
    copy, given = shutil.copytree(run, tmp_path / "a copy"), []

    def stand_in(network, example, folder):
        given.append((network, example))
        (folder / "student.pt2").write_bytes(b"a program")

    monkeypatch.setattr(export, "compile_student", stand_in)
    for _ in range(2):
        compress(recipe_path, copy, Listener(), until="export", torch_tensorrt=True)
    ((network, example),) = given
    assert isinstance(network, QuantizedNetwork)
    assert not network.training
    assert (example.shape, example.dtype) == (torch.Size([1, 1, 8, 8]), torch.float32)
    _, stages = read_run(copy)
    assert stages["torch-tensorrt"].path("student.pt2").read_bytes() == b"a program"


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_without_a_gpu_it_says_what_is_missing(run, recipe_path, tmp_path):
    copy = shutil.copytree(run, tmp_path / "a copy")
    with pytest.raises(MissingError, match="Torch-TensorRT") as caught:
        compress(recipe_path, copy, Listener(), until="export", torch_tensorrt=True)
    assert caught.value.hint == "pip install 'edgekd[tensorrt]', on a machine with an NVIDIA GPU"
