"""Random small networks: a chain of blocks over a few channels, drawn by hypothesis."""

import torch
from hypothesis import strategies as st
from torch import nn

SHAPE = (3, 8, 8)
CLASSES = 5
ACTIVATIONS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hard_swish": nn.Hardswish,
    "leaky": lambda: nn.LeakyReLU(0.1),
}


class Conv(nn.Module):
    """A convolution, with or without batch norm, and an activation."""

    def __init__(self, c_in, c_out, activation, *, kernel=3, stride=1, groups=1, norm=True):
        super().__init__()
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=not norm)
        layers = [conv, *([nn.BatchNorm2d(c_out)] if norm else []), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers)
        self.channels = c_out

    def forward(self, x):
        return self.layers(x)


class Residual(nn.Module):
    """Two convolutions around a shortcut, which has a convolution of its own where channels change."""

    def __init__(self, c_in, c_out, activation, *, stride=1):
        super().__init__()
        self.left = nn.Sequential(
            Conv(c_in, c_out, activation, stride=stride), Conv(c_out, c_out, "none", norm=True)
        )
        same = c_in == c_out and stride == 1
        self.right = nn.Identity() if same else Conv(c_in, c_out, "none", kernel=1, stride=stride)
        self.activation = ACTIVATIONS[activation]()
        self.channels = c_out

    def forward(self, x):
        return self.activation(self.left(x) + self.right(x))


class Branches(nn.Module):
    """A concatenation of two convolutions, one of them depthwise, and of the input."""

    def __init__(self, c_in, activation):
        super().__init__()
        self.left = Conv(c_in, 8, activation, kernel=1)
        self.right = Conv(c_in, c_in, activation, groups=c_in)
        self.channels = 8 + 2 * c_in

    def forward(self, x):
        return torch.cat([self.left(x), self.right(x), x], 1)


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, c_in, activation):
        super().__init__()
        self.squeeze = Conv(c_in, 4, activation, kernel=1, norm=False)
        self.excite = Conv(4, c_in, "none", kernel=1, norm=False)
        self.channels = c_in

    def forward(self, x):
        return x * torch.sigmoid(self.excite(self.squeeze(x.mean((2, 3), keepdim=True))))


class Attention(nn.Module):
    """One head over the positions, with a shortcut."""

    def __init__(self, c_in):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(c_in), nn.Linear(c_in, 3 * c_in), nn.Linear(c_in, c_in)
        self.channels = c_in

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        tokens = tokens + self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        return tokens.transpose(1, 2).reshape(b, c, h, w)


class Pool(nn.Module):
    """Pooling by maximum or average."""

    def __init__(self, c_in, kind):
        super().__init__()
        self.pool = nn.MaxPool2d(2) if kind == "max" else nn.AvgPool2d(2)
        self.channels = c_in

    def forward(self, x):
        return self.pool(x) if x.shape[2] > 2 else x


class Chain(nn.Module):
    """A stem, the blocks, a global pool and a linear map."""

    def __init__(self, blocks):
        super().__init__()
        self.stem = Conv(SHAPE[0], 8, "relu")
        layers, channels = [], 8
        for kind, activation, width in blocks:
            layers.append(_block(kind, activation, width, channels))
            channels = layers[-1].channels
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def _block(kind, activation, width, channels):
    match kind:
        case "conv":
            return Conv(channels, width, activation)
        case "strided":
            return Conv(channels, width, activation, stride=2)
        case "depthwise":
            return Conv(channels, channels, activation, groups=channels)
        case "residual":
            return Residual(channels, width, activation)
        case "branches":
            return Branches(channels, activation)
        case "gate":
            return Gate(channels, activation)
        case "attention":
            return Attention(channels)
        case _:
            return Pool(channels, kind)


KINDS = ("conv", "strided", "depthwise", "residual", "branches", "gate", "attention", "max", "average")
BLOCK = st.tuples(st.sampled_from(KINDS), st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from((4, 8, 12)))


@st.composite
def networks(draw):
    """A network in evaluation, its batch norms with statistics of a trained one; and what it is made of."""
    blocks, seed = draw(st.lists(BLOCK, min_size=1, max_size=4)), draw(st.integers(0, 999))
    torch.manual_seed(seed)
    network = Chain(blocks)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()
