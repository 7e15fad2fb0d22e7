"""Small networks, one a shape of graph that the quantizer meets."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 4
SHAPE = (3, 8, 8)


def conv_bn(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class PostAct(nn.Module):
    """ResNet: conv, bn, relu, conv, bn, add, relu, global pool, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8), nn.ReLU(inplace=True))
        self.conv1, self.bn1 = conv_bn(8, 8)
        self.conv2, self.bn2 = conv_bn(8, 8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        y += x
        return self.head(torch.flatten(self.pool(F.relu(y)), 1))


class PreAct(nn.Module):
    """Wide ResNet: bn and relu come first, and the sum is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn3, self.head = nn.BatchNorm2d(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        x = F.relu(self.bn3(x))
        return self.head(F.avg_pool2d(x, x.shape[2]).view(x.size(0), -1))


class Inverted(nn.Module):
    """MobileNetV2: expand, depthwise, project, ReLU6, no activation before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8), nn.ReLU6())
        self.block = nn.Sequential(
            *conv_bn(8, 16, 1), nn.ReLU6(), *conv_bn(16, 16, groups=16), nn.ReLU6(), *conv_bn(16, 8, 1)
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.block(x)).mean([2, 3]))


class Branches(nn.Module):
    """Concatenation, maximum pooling, channel shuffle, chunk, and a gate (squeeze and excite)."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(*conv_bn(3, 8), nn.ReLU())
        self.right = nn.Sequential(*conv_bn(3, 8), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.tail = nn.Sequential(*conv_bn(8, 8), nn.ReLU())
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.cat([self.left(x), self.right(x)], 1), 2)
        x = x * self.gate(x)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        first, second = x.chunk(2, dim=1)
        x = torch.cat([first, self.tail(second)], 1)
        return self.head(x.mean((2, 3)))


class Spectrum(nn.Module):
    """One-dimensional convolutions with SiLU, and batch norm behind a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.SiLU(), nn.Conv1d(8, 8, 3, groups=8)
        )
        self.fc, self.bn = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x.flatten(2)).mean(-1)
        return self.head(F.relu(self.bn(self.fc(x))))


class Attention(nn.Module):
    """One block of a transformer over patches, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
        x = x + self.mlp(x)
        return self.head(x[:, 0])


class Functional(nn.Module):
    """Weights that are read by functions, not held by torch's own modules."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) * 0.2)
        self.norm = nn.BatchNorm2d(8)
        self.matrix = nn.Parameter(torch.randn(CLASSES, 8))
        self.offset = nn.Parameter(torch.randn(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, stride=2, padding=1)
        norm = self.norm
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return F.linear(F.adaptive_avg_pool2d(x.relu(), 1).flatten(1), self.matrix, self.offset)


class Repeated(nn.Module):
    """Layers that are called twice, on values of other ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 10, 3, padding=1)
        self.fc, self.head = nn.Linear(10, 10), nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.conv(F.relu(self.conv(x)))).mean((2, 3))
        return self.head(F.relu(self.fc(F.relu(self.fc(x)))))


NETWORKS = (PostAct, PreAct, Inverted, Branches, Spectrum, Attention, Functional, Repeated)


def build(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """A network in evaluation whose batch norms hold statistics of a trained one."""
    torch.manual_seed(seed)
    network = kind()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def examples(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, generator=generator)
