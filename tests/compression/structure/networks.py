"""Small random convolutional networks in torch, of the operators that exported programs consist of."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

SIDE = 8
Step = Callable[[list[torch.Tensor]], torch.Tensor]


class RandomNetwork(nn.Module):
    """Operators one after the other, each on values that earlier ones made.

    Values are [rows, channels, 8, 8]; ``channels`` holds how many each of them has, newest last.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList()
        self.steps: list[Step] = []
        self.channels = [3]
        self.heads: list[tuple[nn.Module, int]] = []
        self.convolution()

    def number(self, low: int, high: int) -> int:
        """One of low to high - 1."""
        return int(torch.randint(low, high, (), generator=self.random))

    def weight(self, *shape: int) -> torch.Tensor:
        """Random values, none of them near zero."""
        values = torch.rand(shape, generator=self.random) * 0.8 + 0.2
        return values * (torch.rand(shape, generator=self.random).round() * 2 - 1)

    def layer(self, module: nn.Module) -> nn.Module:
        """A layer with such values."""
        for parameter in module.parameters():
            parameter.data = self.weight(*parameter.shape)
        self.layers.append(module)
        return module

    def add(self, channels: int, step: Step) -> None:
        """A value that later operators may read."""
        self.steps.append(step)
        self.channels.append(channels)

    def alone(self, function: Callable[[torch.Tensor], torch.Tensor], channels: int | None = None) -> None:
        """A function of the newest value."""
        self.add(channels or self.channels[-1], lambda values: function(values[-1]))

    def convolution(self, groups: int = 1) -> None:
        """Groups only where they divide both sides."""
        wanted, channels = self.number(2, 5) * 2, self.channels[-1]
        groups = groups if channels % groups == 0 and wanted % groups == 0 else 1
        self.alone(self.layer(nn.Conv2d(channels, wanted, 3, padding=1, groups=groups)), wanted)

    def depthwise(self) -> None:
        """One or two filters a channel."""
        channels, times = self.channels[-1], self.number(1, 3)
        layer = nn.Conv2d(channels, channels * times, 3, padding=1, groups=channels, bias=False)
        self.alone(self.layer(layer), channels * times)

    def transposed(self) -> None:
        """A transposed convolution, or one of one filter a channel."""
        channels = self.channels[-1]
        groups = channels if self.number(0, 2) else 1
        wanted = channels if groups > 1 else 4
        self.alone(self.layer(nn.ConvTranspose2d(channels, wanted, 3, padding=1, groups=groups)), wanted)

    def activation(self) -> None:
        """One with f(0) = 0 or one without, some of them in place."""
        kinds: list[nn.Module] = [nn.ReLU(inplace=True), nn.Sigmoid(), nn.GELU(), nn.Hardswish(), nn.PReLU()]
        chosen = kinds[self.number(0, len(kinds))]
        self.alone(lambda value: chosen(value * 1.0))
        self.layers.append(chosen)

    def norm(self) -> None:
        """A batch norm."""
        layer = nn.BatchNorm2d(self.channels[-1])
        layer.running_var = self.weight(self.channels[-1]).abs()
        self.alone(self.layer(layer))

    def residual(self) -> None:
        """The sum with an earlier value of as many channels, if there is one."""
        others = [place for place, count in enumerate(self.channels[:-1]) if count == self.channels[-1] and place]
        if others:
            other = others[self.number(0, len(others))]
            self.add(self.channels[-1], lambda values: values[-1] + values[other])

    def concatenation(self) -> None:
        """With any earlier value."""
        other = self.number(0, len(self.channels))
        both = self.channels[-1] + self.channels[other]
        if both <= 32:
            self.add(both, lambda values: torch.cat([values[-1], values[other]], 1))

    def split(self) -> None:
        """Halves or uneven parts, put together in the other order."""
        channels = self.channels[-1]
        if self.number(0, 2):
            self.alone(lambda value: torch.cat(torch.chunk(value, 2, 1)[::-1], 1))
        elif channels >= 4:
            first = self.number(1, channels)
            self.alone(lambda value: torch.split(value, [first, channels - first], 1)[0], first)

    def slice(self) -> None:
        """Channels from one to another, said from the start or from the end."""
        channels = self.channels[-1]
        if channels < 4:
            return
        low = self.number(0, channels - 2)
        high = self.number(low + 2, channels + 1)
        if self.number(0, 3):
            self.alone(lambda value: value[:, low:high], high - low)
        else:
            self.alone(lambda value: value[:, low - channels :], channels - low)

    def gated(self) -> None:
        """One half of the channels scaled by the other."""
        if self.channels[-1] % 2 == 0:
            self.alone(lambda value: functional.glu(value, 1), self.channels[-1] // 2)

    def scaled_by_mean(self) -> None:
        """Channels scaled by what a layer makes of their means (squeeze and excitation)."""
        layer = self.layer(nn.Linear(self.channels[-1], self.channels[-1]))
        self.alone(lambda value: value * torch.sigmoid(layer(value.mean((2, 3))))[:, :, None, None])

    def layer_norm(self) -> None:
        """Normalized over channels, which all have to stay then."""
        layer = self.layer(nn.LayerNorm(self.channels[-1]))
        self.alone(lambda value: layer(value.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    def tokens(self) -> None:
        """Pixels as tokens through two linear layers, the channels' number standing in a shape."""
        channels, hidden = self.channels[-1], self.number(2, 5) * 2
        first, second = self.layer(nn.Linear(channels, hidden)), self.layer(nn.Linear(hidden, channels))

        def apply(value: torch.Tensor) -> torch.Tensor:
            tokens = value.flatten(2).transpose(1, 2)
            made = tokens + second(torch.relu(first(tokens)))
            return made.transpose(1, 2).reshape(value.shape[0], channels, SIDE, SIDE)

        self.alone(apply)

    def attention(self) -> None:
        """Two heads over the pixels, the rows' and the heads' axis being one for a while."""
        channels = self.channels[-1]
        layers = [self.layer(nn.Linear(channels, 8)) for _ in range(3)]
        last = self.layer(nn.Linear(8, channels))
        fused = bool(self.number(0, 2))

        def apply(value: torch.Tensor) -> torch.Tensor:
            tokens, rows = value.flatten(2).transpose(1, 2), value.shape[0]
            parts = [layer(tokens).view(rows, -1, 2, 4).transpose(1, 2) for layer in layers]
            if fused:
                made = functional.scaled_dot_product_attention(*parts)
            else:
                query, key, heads = (part.reshape(rows * 2, SIDE * SIDE, 4) for part in parts)
                made = (torch.softmax(query @ key.transpose(1, 2) / 2, -1) @ heads).view(rows, 2, SIDE * SIDE, 4)
            return (tokens + last(made.transpose(1, 2).flatten(2))).transpose(1, 2).unflatten(2, (SIDE, SIDE))

        self.alone(apply)

    def shuffled(self) -> None:
        """Channels shuffled between two groups (ShuffleNet)."""
        half = self.channels[-1] // 2
        if self.channels[-1] % 2 == 0:
            self.alone(
                lambda value: value.view(-1, 2, half, SIDE, SIDE).transpose(1, 2).reshape(-1, 2 * half, SIDE, SIDE)
            )

    def picked(self) -> None:
        """One channel by its number, added to all."""
        self.alone(lambda value: value + value[:, 0:1] + value.select(1, 0).unsqueeze(1))

    def counted(self) -> None:
        """Divided by the number of channels."""
        self.alone(lambda value: value / value.shape[1])

    def finished(self) -> "RandomNetwork":
        """The last two values will be pooled, flattened and classified together."""
        for place in range(max(len(self.channels) - 2, 0), len(self.channels)):
            hidden = self.layer(nn.Linear(self.channels[place] * 4, 6))
            self.heads.append((nn.Sequential(hidden, nn.ReLU(), self.layer(nn.Linear(6, 2))), place))
        return self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Two numbers a row."""
        values = [images]
        for step in self.steps:
            values.append(step(values))
        pooled = [head(torch.flatten(functional.avg_pool2d(values[place], 4), 1)) for head, place in self.heads]
        return torch.stack(pooled).sum(0)


OPERATORS: tuple[Callable[[RandomNetwork], None], ...] = (
    RandomNetwork.convolution,
    lambda network: network.convolution(2),
    RandomNetwork.depthwise,
    RandomNetwork.transposed,
    RandomNetwork.activation,
    RandomNetwork.norm,
    RandomNetwork.residual,
    RandomNetwork.concatenation,
    RandomNetwork.split,
    RandomNetwork.slice,
    RandomNetwork.gated,
    RandomNetwork.scaled_by_mean,
    RandomNetwork.layer_norm,
    RandomNetwork.tokens,
    RandomNetwork.attention,
    RandomNetwork.shuffled,
    RandomNetwork.picked,
    RandomNetwork.counted,
)
