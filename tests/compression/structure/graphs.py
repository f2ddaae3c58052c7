"""Small random convolutional graphs of the operators that exporters write."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIDE = 8


class GraphBuilder:
    """Adds operators to a graph, of which it knows how many channels each value has.

    Values are [1, channels, 8, 8]; ``values`` holds their names, newest last.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.stored: list[TensorProto] = []
        self.values: list[tuple[str, int]] = [("input", 3)]
        self.convolution()

    def weight(self, *shape: int) -> str:
        """A stored tensor; none of its values is near zero."""
        values = self.random.uniform(0.2, 1.0, shape) * self.random.choice([-1.0, 1.0], shape)
        return self.number(values.astype(np.float32))

    def number(self, values: np.ndarray) -> str:
        """A stored tensor of these values."""
        self.stored.append(numpy_helper.from_array(values, f"stored{len(self.stored)}"))
        return self.stored[-1].name

    def node(self, operator: str, inputs: Sequence[str], outputs: int = 1, **attributes: object) -> list[str]:
        """Outputs of a new node."""
        made = [f"value{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, made, **attributes))
        return made

    def add(self, name: str, channels: int) -> None:
        """A value that later operators may read."""
        self.values.append((name, channels))

    def convolution(self, groups: int = 1) -> None:
        """Groups only where they divide both sides."""
        name, channels = self.values[-1]
        wanted = int(self.random.integers(2, 5)) * 2
        groups = groups if channels % groups == 0 and wanted % groups == 0 else 1
        kernel, bias = self.weight(wanted, channels // groups, 3, 3), self.weight(wanted)
        self.add(self.node("Conv", [name, kernel, bias], pads=[1, 1, 1, 1], group=groups)[0], wanted)

    def depthwise(self) -> None:
        """One or two filters a channel."""
        name, channels = self.values[-1]
        wanted = channels * int(self.random.integers(1, 3))
        made = self.node("Conv", [name, self.weight(wanted, 1, 3, 3)], pads=[1, 1, 1, 1], group=channels)
        self.add(made[0], wanted)

    def transposed(self) -> None:
        """A transposed convolution."""
        name, channels = self.values[-1]
        made = self.node("ConvTranspose", [name, self.weight(channels, 4, 3, 3)], pads=[1, 1, 1, 1])
        self.add(made[0], 4)

    def activation(self) -> None:
        """One with f(0) = 0 or one without."""
        name, channels = self.values[-1]
        self.add(self.node(str(self.random.choice(["Relu", "Sigmoid", "Tanh"])), [name])[0], channels)

    def norm(self) -> None:
        """A batch norm."""
        name, channels = self.values[-1]
        statistics = [self.weight(channels) for _ in range(3)]
        variance = self.number(self.random.uniform(0.5, 2.0, channels).astype(np.float32))
        self.add(self.node("BatchNormalization", [name, *statistics, variance])[0], channels)

    def residual(self) -> None:
        """The sum with an earlier value of as many channels, if there is one."""
        name, channels = self.values[-1]
        others = [other for other, count in self.values[1:-1] if count == channels]
        if others:
            self.add(self.node("Add", [name, str(self.random.choice(others))])[0], channels)

    def concatenation(self) -> None:
        """With any earlier value."""
        (name, channels), (other, more) = self.values[-1], self.values[int(self.random.integers(len(self.values)))]
        if channels + more <= 32:
            self.add(self.node("Concat", [name, other], axis=1)[0], channels + more)

    def split(self) -> None:
        """Halves or uneven parts, put together in the other order."""
        name, channels = self.values[-1]
        if channels < 4:
            return
        first = int(self.random.integers(1, channels))
        sizes = self.number(np.array([first, channels - first]))
        parts = self.node("Split", [name, sizes], 2, axis=1)
        if self.random.random() < 0.5:
            self.add(self.node("Concat", parts[::-1], axis=1)[0], channels)
        else:
            self.add(parts[0], first)

    def slice(self) -> None:
        """Channels from one to another, said from the start or from the end."""
        name, channels = self.values[-1]
        if channels < 4:
            return
        low = int(self.random.integers(0, channels - 2))
        high = int(self.random.integers(low + 2, channels + 1))
        start, end = (low - channels, high) if self.random.random() < 0.3 else (low, high)
        bounds = [self.number(np.array([number])) for number in (start, end, 1)]
        self.add(self.node("Slice", [name, *bounds])[0], high - low)

    def scaled_by_mean(self) -> None:
        """Channels scaled by what a layer makes of their means (squeeze and excitation)."""
        name, channels = self.values[-1]
        mean = self.node("GlobalAveragePool", [name])[0]
        gate = self.node("Sigmoid", self.node("Conv", [mean, self.weight(channels, channels, 1, 1)]))[0]
        self.add(self.node("Mul", [name, gate])[0], channels)

    def layer_norm(self) -> None:
        """Normalized over channels, which all have to stay then."""
        name, channels = self.values[-1]
        last = self.node("Transpose", [name], perm=[0, 2, 3, 1])[0]
        made = self.node("LayerNormalization", [last, self.weight(channels), self.weight(channels)])[0]
        self.add(self.node("Transpose", [made], perm=[0, 3, 1, 2])[0], channels)

    def reshaped(self) -> None:
        """Pixels as one axis, scaled, and back; the channels' number stands in a stored or a computed shape."""
        name, channels = self.values[-1]
        flat = self.node("Reshape", [name, self.number(np.array([1, channels, SIDE * SIDE]))])[0]
        flat = self.node("Mul", [flat, self.weight(channels, 1)])[0]
        if self.random.random() < 0.5:
            shape = self.node("Shape", [name])[0]
        else:
            start = self.node("Slice", [self.node("Shape", [name])[0], *map(self.number, map(np.array, ([0], [1])))])[0]
            shape = self.node("Concat", [start, self.number(np.array([channels, SIDE, SIDE]))], axis=0)[0]
        self.add(self.node("Reshape", [flat, shape])[0], channels)

    def shuffled(self) -> None:
        """Channels shuffled between two groups (ShuffleNet)."""
        name, channels = self.values[-1]
        if channels % 2:
            return
        cut = self.node("Reshape", [name, self.number(np.array([1, 2, channels // 2, SIDE, SIDE]))])[0]
        turned = self.node("Transpose", [cut], perm=[0, 2, 1, 3, 4])[0]
        self.add(self.node("Reshape", [turned, self.number(np.array([1, -1, SIDE, SIDE]))])[0], channels)

    def picked(self) -> None:
        """One channel by its number, added to all."""
        name, channels = self.values[-1]
        one = self.node("Gather", [name, self.number(np.array([0]))], axis=1)[0]
        self.add(self.node("Add", [name, one])[0], channels)

    def counted(self) -> None:
        """Divided by the number of channels, as the graph itself finds it."""
        name, channels = self.values[-1]
        count = self.node("Gather", [self.node("Shape", [name])[0], self.number(np.array(1))])[0]
        self.add(self.node("Div", [name, self.node("Cast", [count], to=TensorProto.FLOAT)[0]])[0], channels)

    def model(self) -> ModelProto:
        """All values nothing has read are pooled, flattened and classified together."""
        pooled = []
        for name, channels in self.values[-2:]:
            pool = self.node("AveragePool", [name], kernel_shape=[4, 4], strides=[4, 4])[0]
            flat = self.node("Flatten", [pool])[0]
            hidden = self.node(
                "Relu", self.node("Gemm", [flat, self.weight(6, channels * 4), self.weight(6)], transB=1)
            )
            pooled.append(self.node("MatMul", [hidden[0], self.weight(6, 2)])[0])
        self.nodes.append(helper.make_node("Sum", pooled, ["output"]))
        shapes = ([1, 3, SIDE, SIDE], [1, 2])
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(("input", "output"), shapes, strict=True)
        ]
        graph = helper.make_graph(self.nodes, "graph", values[:1], values[1:], self.stored)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made


OPERATORS: tuple[Callable[[GraphBuilder], None], ...] = (
    GraphBuilder.convolution,
    lambda graph: graph.convolution(2),
    GraphBuilder.depthwise,
    GraphBuilder.transposed,
    GraphBuilder.activation,
    GraphBuilder.norm,
    GraphBuilder.residual,
    GraphBuilder.concatenation,
    GraphBuilder.split,
    GraphBuilder.slice,
    GraphBuilder.scaled_by_mean,
    GraphBuilder.layer_norm,
    GraphBuilder.reshaped,
    GraphBuilder.shuffled,
    GraphBuilder.picked,
    GraphBuilder.counted,
)
