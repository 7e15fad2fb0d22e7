"""A program for test_qad_processes.py: fine-tune on two CPU processes, print what came of it as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from edgekd.documents.recipe import Distillation, QuantizedTraining
from edgekd.documents.scheme import Scheme
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from edgekd.training.evaluate import predict_logits
from edgekd.training.qad import train_quantized
from tests.training.cases import Listener, make_network, make_task

SECTION = QuantizedTraining(
    epochs=3,
    batch_size=32,
    learning_rate=0.02,
    precision="fp32",
    teacher_weight=0.0,
    label_weight=1.0,
    batch_norm="trained",
    freeze_batch_norm_after=0.3,
)


def main(folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    task, student = make_task(), make_network(dropout=0.0).eval()
    examples = torch.from_numpy(task.normalize(task.train.x))
    quantized = prepare(student, examples[:2], Scheme(weight_bits=4, scales="learned"))
    calibrate(quantized, [examples])
    before = quantized.scales()
    listener = Listener()
    result = train_quantized(
        quantized,
        task,
        SECTION,
        Distillation(),
        student=student,
        teacher=None,
        checkpoint_dir=folder,
        seed=0,
        progress=listener,
        devices=2,
    )
    logits_NK = predict_logits(quantized, torch.from_numpy(task.normalize(task.validation.x)))
    return {
        "epochs": [record.epoch for record in listener.epochs],
        "best": result.best_epoch,
        "top1": result.validation_top1,
        "again": float((logits_NK.argmax(1).numpy() == task.validation.y).mean()),
        "moved": before != quantized.scales(),
        "losses": [record.loss for record in result.history if record.loss is not None],
        "folded": not any("norm" in name for name in quantized.state_dict()),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
