"""The loops that edgekd's speed is compared with, written as the literature's released code is.

fp32, channels first; every image changed by itself in Python (pad 4, crop, mirror, to tensor, normalize: a
chain of callables in a Dataset, without PIL); a DataLoader; the teacher asked in every step without gradient;
SGD with momentum; losses and accuracy read in every step. wrn-40-2 -> wrn-16-2, 32x32x3, batch 64.
KD is 0.1 CE + 0.9 T^2 KL at T = 4; SSKD shows each image in four quarter turns, each cropped by itself, and
adds the transformed views' KL and that of the similarities of the self-supervision heads (ratio_ss 0.75).
Axes: N images, B images of a batch, R = 4 B rows, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from edgekd.networks.network import build_network

CLASSES, BATCH = 100, 64
SHAPE = (3, 32, 32)
TEACHER, STUDENT = "wrn-40-2", "wrn-16-2"
_WARM_UP = 2
_MEAN = (0.5071, 0.4867, 0.4408)
_STD = (0.2675, 0.2565, 0.2761)
_WIDTH = 128
"""Features at the pool of both networks."""

Image = NDArray[np.uint8]


def network(name: str) -> nn.Sequential:
    """A network of the CIFAR-100 literature with random weights."""
    torch.manual_seed(0)
    built = build_network(name, in_channels=SHAPE[0], num_classes=CLASSES, input_shape=SHAPE)
    assert isinstance(built, nn.Sequential)
    return built


def random_crop(image_HWC: Image) -> Image:
    """A 32x32 piece of the image with 4 black pixels on each side."""
    padded = np.pad(image_HWC, ((4, 4), (4, 4), (0, 0)))
    top, left = (int(start) for start in torch.randint(0, 9, (2,)))
    return padded[top : top + 32, left : left + 32]


def random_flip(image_HWC: Image) -> Image:
    """Mirrored with probability 1/2."""
    return image_HWC[:, ::-1] if torch.rand(1).item() < 0.5 else image_HWC


def to_tensor(image_HWC: Image) -> Tensor:
    """Channels first, from 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1))).float().div(255)


def normalize(image_CHW: Tensor) -> Tensor:
    """(x - mean) / std by channel."""
    mean, std = torch.tensor(_MEAN).view(-1, 1, 1), torch.tensor(_STD).view(-1, 1, 1)
    return image_CHW.sub(mean).div(std)


class Compose:
    """Callables, one after the other."""

    def __init__(self, *steps: Callable[[Any], Any]) -> None:
        self.steps = steps

    def __call__(self, image: Any) -> Any:
        """The last one's result."""
        for step in self.steps:
            image = step(image)
        return image


_ONE_VIEW = Compose(random_crop, random_flip, to_tensor, normalize)
_CROPPED = Compose(random_crop, to_tensor, normalize)


def four_views(image_HWC: Image) -> Tensor:
    """Mirrored once, turned by 0, 1, 2, 3 quarters, each cropped by itself: (4, C, H, W)."""
    image_HWC = random_flip(image_HWC)
    return torch.stack([_CROPPED(np.rot90(image_HWC, turn)) for turn in range(4)])


class Images(Dataset[tuple[Tensor, int]]):
    """Images of CIFAR-100's shape; noise, since throughput does not depend on what is learned."""

    def __init__(self, count: int, show: Callable[[Image], Tensor]) -> None:
        self.x_NHWC = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.y_N = np.arange(count) % CLASSES
        self.show = show

    def __len__(self) -> int:
        return len(self.y_N)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image as it is shown, and its label."""
        return self.show(self.x_NHWC[index]), int(self.y_N[index])


def kd_images_per_s(steps: int, *, workers: int) -> float:
    """Images per second of `steps` steps of KD."""
    teacher, student = network(TEACHER).eval(), network(STUDENT).train()

    def loss_of(x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher_BK = teacher(x_BCHW)
        student_BK = student(x_BCHW)
        return 0.1 * F.cross_entropy(student_BK, y_B) + 0.9 * _kl(student_BK, teacher_BK, 4.0), student_BK

    return _rate(student, loss_of, _ONE_VIEW, steps, workers)


def sskd_images_per_s(steps: int, *, workers: int) -> float:
    """Images per second of `steps` steps of SSKD's third stage; four rows count as one image."""
    teacher, student = network(TEACHER).eval(), network(STUDENT).train()
    teacher_head, student_head = _head(), _head()

    def loss_of(x_B4CHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        x_RCHW = x_B4CHW.flatten(0, 1)
        with torch.no_grad():
            teacher_features_RC = teacher[:-1](x_RCHW)
            teacher_RK, teacher_RD = teacher[-1](teacher_features_RC), teacher_head(teacher_features_RC)
        features_RC = student[:-1](x_RCHW)
        student_RK, student_RD = student[-1](features_RC), student_head(features_RC)
        plain = torch.arange(len(x_RCHW)) % 4 == 0
        kept_tf = _kept(teacher_RK[~plain], y_B.repeat_interleave(3), ratio=1.0)
        teacher_RB, student_RB = _similarity(teacher_RD, plain), _similarity(student_RD, plain)
        kept_ss = _kept(teacher_RB, torch.arange(len(y_B)).repeat_interleave(3), ratio=0.75)
        ce = F.cross_entropy(student_RK[plain], y_B)
        kd = _kl(student_RK[plain], teacher_RK[plain], 4.0)
        tf = _kl(student_RK[~plain][kept_tf], teacher_RK[~plain][kept_tf], 4.0)
        ss = _kl(student_RB[kept_ss], teacher_RB[kept_ss], 0.5)
        return 0.1 * ce + 0.9 * kd + 2.7 * tf + 10.0 * ss, student_RK[plain]

    return _rate(nn.ModuleList([student, student_head]), loss_of, four_views, steps, workers)


def _rate(
    learner: nn.Module,
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    show: Callable[[Image], Tensor],
    steps: int,
    workers: int,
) -> float:
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    data = Images((_WARM_UP + steps) * BATCH, show)
    began = 0.0
    for step, (x, y_B) in enumerate(_batches(data, workers)):
        if step == _WARM_UP:
            began = time.perf_counter()
        loss, logits_BK = loss_of(x, y_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _meter(loss, logits_BK, y_B)
    return steps * BATCH / (time.perf_counter() - began)


def _batches(data: Images, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers)


def _meter(loss: Tensor, logits_BK: Tensor, y_B: Tensor) -> tuple[float, float, float]:
    """The loss, top-1 and top-5 that such loops print."""
    hit_B5 = logits_BK.topk(5, dim=1).indices == y_B[:, None]
    return loss.item(), hit_B5[:, 0].float().mean().item(), hit_B5.any(1).float().mean().item()


def _kl(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    log_BK = F.log_softmax(student_BK / temperature, dim=1)
    return (
        F.kl_div(log_BK, F.softmax(teacher_BK / temperature, dim=1), reduction="batchmean") * temperature**2
    )


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))


def _similarity(embedded_RD: Tensor, plain_R: Tensor) -> Tensor:
    """Cosine of each transformed row with each plain one, (3 B, B)."""
    unit_RD = F.normalize(embedded_RD, dim=1)
    return unit_RD[~plain_R] @ unit_RD[plain_R].T


def _kept(scores_RK: Tensor, truth_R: Tensor, *, ratio: float) -> Tensor:
    """Rows that the teacher gets right, and `ratio` of the others, the least wrong first."""
    order_RK = scores_RK.argsort(dim=1, descending=True)
    rank_R = (order_RK == truth_R[:, None]).nonzero()[:, 1]
    right = int((rank_R == 0).sum())
    return rank_R.argsort()[: right + int(ratio * (len(rank_R) - right))]
