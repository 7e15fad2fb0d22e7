"""A program for test_launch.py: train on two CPU processes and on one, print what came of it as JSON."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distillation.labels import Labels
from edgekd.distillation.objective import Objective, Part
from edgekd.distillation.sla import SLA
from edgekd.documents.recipe import Training
from edgekd.documents.terms.pretext import SLATerm
from edgekd.errors import DivergedError
from edgekd.training.launch import run_plan
from edgekd.training.plan import Plan
from edgekd.training.precision import Precision
from edgekd.training.setting import setting_of
from tests.training.cases import Listener, make_task


class Linear(nn.Module):
    """No batch norm and no dropout, so that the number of processes makes no difference but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.linear = nn.Linear(4 * 36, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(x_BCHW)).flatten(1))


@dataclass(frozen=True)
class Witness:
    """Phases that write down, in every process, the weights that an epoch begins with."""

    folder: Path

    def enter_training(self, network: nn.Module, *, epoch: int) -> None:
        network.train()
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        content = b"".join(value.detach().numpy().tobytes() for value in network.parameters())
        digest = hashlib.sha256(content).hexdigest()
        self.folder.joinpath(f"epoch{epoch}-rank{rank}").write_text(digest)

    def enter_validation(self, network: nn.Module) -> None:
        network.eval()


def _with_a_head() -> SLA:
    network = Linear()
    section = SLATerm(kind="sla", student_tap="linear")
    return SLA(section, setting_of(network, {}, make_task()))


def plan_of(folder: Path, *, learning_rate: float = 0.1) -> Plan:
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    return Plan(
        network=Linear(),
        task=make_task(),
        section=Training(epochs=3, batch_size=32, learning_rate=learning_rate),
        objective=Objective([Part("labels", 1.0, Labels()), Part("sla", 0.5, _with_a_head())]),
        teachers={},
        phases=Witness(folder),
        precision=Precision("fp32", channels_last=False),
        checkpoint_dir=folder / "checkpoints",
        seed=0,
        starts_trained=False,
    )


def error_of(plan: Plan) -> str:
    try:
        run_plan(plan, progress=Listener(), devices=2)
    except DivergedError as error:
        return str(error)
    return "none"


def main(folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    one, two = plan_of(folder / "one"), plan_of(folder / "two")
    listener = Listener()
    alone = run_plan(one, progress=Listener(), devices=1)
    together = run_plan(two, progress=listener, devices=2)
    pairs = zip(one.network.parameters(), two.network.parameters(), strict=True)
    return {
        "losses": [[record.loss for record in result.history] for result in (alone, together)],
        "difference": max(float((a - b).detach().abs().max()) for a, b in pairs),
        "heads": {
            name: float((value - together.heads[name]).abs().max()) for name, value in alone.heads.items()
        },
        "starts": listener.starts,
        "steps": len(listener.steps),
        "epochs": [record.epoch for record in listener.epochs],
        "witnesses": {path.name: path.read_text() for path in sorted(folder.glob("two/epoch*"))},
        "checkpoints": len(list((folder / "two" / "checkpoints").iterdir())),
        "error": error_of(plan_of(folder / "diverged", learning_rate=1e30)),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
