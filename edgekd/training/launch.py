"""Run a plan on one device, or on several by DDP: a process a device, each with its share of every batch.

`auto` is one device, the first GPU or else the CPU, so that a result does not depend on how many GPUs a
machine happens to have. Several processes are spawned by Fabric; the plan travels to them, the best weights
come back.
"""

from __future__ import annotations

import copy
import dataclasses
import io
from functools import partial

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch.multiprocessing.spawn import ProcessException

from edgekd.documents.recipe import Devices
from edgekd.errors import EdgekdError, TrainingError, UsageError
from edgekd.training.loop import Trainer
from edgekd.training.plan import Plan
from edgekd.training.progress import Progress, Silent
from edgekd.training.relay import Relay, Sender
from edgekd.training.result import TrainingResult


def run_plan(plan: Plan, *, progress: Progress, devices: Devices) -> TrainingResult:
    """Train, and leave the best weights in the plan's network, on the CPU.

    Args:
        plan: what to train.
        progress: hears how it goes, in this process.
        devices: how many GPUs, or how many processes where there is no GPU.

    Raises:
        UsageError: there are fewer GPUs.
    """
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    present = torch.cuda.device_count()
    if devices != "auto" and accelerator == "cuda" and devices > present:
        raise UsageError(
            f"{devices} devices are asked for, and {present} are here", hint="lower training.devices"
        )
    if devices in ("auto", 1):
        result = Trainer(Fabric(accelerator=accelerator, devices=1), plan).run(progress)
    else:
        # A head rests in epochs in which its term has no weight, a learned scale once it is frozen.
        resting = plan.rests or any(True for _ in plan.objective.parameters())
        strategy = DDPStrategy(start_method="spawn", find_unused_parameters=resting)
        fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy)
        result = _run_in_processes(fabric, plan, progress)
    plan.network.to("cpu").to(memory_format=torch.contiguous_format)
    plan.objective.to("cpu")
    return result


def _run_in_processes(fabric: Fabric, plan: Plan, progress: Progress) -> TrainingResult:
    relay = Relay(progress)
    try:
        with relay.listening():
            fabric.launch(partial(_work_in_process, plan=plan, sender=relay.sender))
    except ProcessException as failure:
        for outcome in relay.delivered:
            if isinstance(outcome, EdgekdError):
                raise outcome from None  # what a process said says more than how it ended
        raise TrainingError("a training process ended early", hint="train on one device") from failure
    content, result = relay.delivered[0]
    state = torch.load(io.BytesIO(content), weights_only=True)
    plan.network.load_state_dict(state["network"])
    assert isinstance(result, TrainingResult)
    return dataclasses.replace(result, heads=state["heads"])


def _work_in_process(fabric: Fabric, *, plan: Plan, sender: Sender) -> None:
    """The work of one process; an error ends all of them."""
    try:
        outcome = _train(fabric, plan, sender if fabric.is_global_zero else Silent())
        if fabric.is_global_zero:
            sender.deliver(outcome)
        fabric.barrier()
    except EdgekdError as error:
        sender.deliver(error)
        raise
    finally:
        torch.distributed.destroy_process_group()  # a process that exits with a live group may abort


def _train(fabric: Fabric, plan: Plan, progress: Progress) -> tuple[bytes, TrainingResult]:
    # Spawned, the processes share the memory of what they are given: all would step the same weights.
    network, objective = copy.deepcopy((plan.network, plan.objective))
    own = dataclasses.replace(plan, network=network, objective=objective)
    result = Trainer(fabric, own).run(progress)
    content = io.BytesIO()
    torch.save({"network": own.network.state_dict(), "heads": dict(result.heads)}, content)
    return content.getvalue(), dataclasses.replace(result, heads={})
