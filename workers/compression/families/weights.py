"""The weights of a model, whatever file holds it: one way to list, read, change and store them in fewer bits.

Techniques that work weight by weight are written once against ``CompressibleModel`` and serve every format. All of
them see a weight as a matrix: outputs along the rows, all inputs of an output along the columns.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from workers.compression.data import Dataset
from workers.compression.families.model import Array, Feeds, Model
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.quantization.form_sizes import scheme_of, uniform_bits
from workers.compression.quantization.uniform import UniformWeight
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.step import selects

Floats = npt.NDArray[np.float32]
Role = Literal["linear", "convolution", "embedding", "recurrent", "other"]
FloatType = Literal["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
Kept = Literal["zeros", "values"]
"""What the storage of a weight relies on: its zeros, or which of its elements share a value."""


@dataclass(frozen=True)
class FloatForm:
    """A weight as narrower floats.

    Args:
        values: The matrix, rounded to ``dtype`` but in float32.
        dtype: How it is stored.
        scale: What the stored numbers are multiplied by, one per row (rows, 1) or a single one (1, 1); None for 1.
            ``values`` are those before multiplication.
    """

    values: Floats
    dtype: FloatType
    scale: Floats | None = None

    def restored(self) -> Floats:
        """The values that the numbers stand for."""
        return self.values if self.scale is None else self.values * self.scale


WeightForm = UniformWeight | CodebookWeight | FloatForm
"""Ways to store a weight; the shapes in a form are those of the weight's matrix."""


@dataclass(frozen=True)
class Weight:
    """A stored matrix, kernel or table of floats.

    Args:
        name: Of the stored tensor, unique in the model.
        layer: Of the layer that computes with it, as reports call it.
        shape: As stored.
        dtype: As stored, such as ``float32`` or ``bfloat16``.
        role: What reads it; ``embedding`` is a table of which rows are looked up.
        order: The stored axes in the order in which the matrix has them.
        leading: How many of the axes in ``order`` make up the rows.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    order: tuple[int, ...]
    leading: int = 1

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows = int(np.prod([self.shape[axis] for axis in self.order[: self.leading]], dtype=np.int64))
        return rows, self.size // rows

    @property
    def stored_bytes(self) -> int:
        """What its values take as they are."""
        return self.size * {"float64": 8, "float32": 4}.get(self.dtype, 2)

    def to_matrix(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Stored values as the matrix (outputs, inputs)."""
        return np.ascontiguousarray(values.transpose(self.order)).reshape(self.matrix_shape)

    def from_matrix(self, matrix: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The matrix in the stored shape."""
        permuted = matrix.reshape([self.shape[axis] for axis in self.order])
        return np.ascontiguousarray(permuted.transpose(np.argsort(self.order)))

    def is_selected(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
        """Whether a step's globs leave it in, going by the layer's name or the tensor's."""
        names = (self.layer, self.name)
        included = any(selects(name, include, ()) for name in names)
        return included and all(selects(name, (), exclude) for name in names)


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """What a weight's columns were multiplied with on the rows of a dataset.

    Args:
        gram: Sum over all input vectors x of the outer product x xᵀ, divided by their number; shape (inputs, inputs),
            float32. For a grouped convolution the mean over its groups.
        magnitude: Mean of |x|, shape (inputs,).
        count: How many vectors there were.
    """

    gram: Floats
    magnitude: Floats
    count: int


class CompressibleModel(Model):
    """A model whose weights can be listed, read, changed, and stored in other forms.

    Attributes:
        leaves_out_zeros: Whether weights that are mostly zero are saved without their zeros.
    """

    leaves_out_zeros = False

    @abstractmethod
    def weights(self) -> tuple[Weight, ...]:
        """Float weights of at least two axes in graph order, tied ones once."""

    @abstractmethod
    def matrix(self, weight: Weight) -> Floats:
        """The values as float32 in the form of ``Weight.to_matrix``; not to be written to."""

    @abstractmethod
    def replace(self, matrices: Iterable[tuple[Weight, Floats]]) -> None:
        """Gives weights other values, stored as before; takes them one at a time."""

    @abstractmethod
    def store(self, forms: Iterable[tuple[Weight, WeightForm]]) -> None:
        """Stores weights in other forms; takes them one at a time, so that not all have to be in memory."""

    @abstractmethod
    def why_not(self, weight: Weight, form: WeightForm) -> str | None:
        """Why the format cannot store a weight in a form like this one, as the rest of "it stays float32: ..."."""

    def leave_out_zeros(self) -> None:
        """From now on saves weights that are mostly zero without their zeros, where that is smaller.

        Raises:
            UnsupportedTechnique: The format has no such storage.
        """
        raise UnsupportedTechnique(f"A {self.format.value} file stores zeros like any other value.")

    def fill_in_zeros(self) -> None:
        """Makes weights ones like all others that the file holds without their zeros; saved, they are so again."""
        return

    def stored_bits(self, weight: Weight, form: UniformWeight) -> int:
        """How many bits a weight takes in the file in a form like this one, scales and zero points counted."""
        return uniform_bits(form.blocks, form.grid.bits, scheme_of(form))

    @contextmanager
    def varied(self, matrices: Iterable[tuple[Weight, Floats]]) -> Iterator[Callable[[Feeds], list[Array]]]:
        """``run`` of a model with other values in some weights; afterwards this one is as it was before."""
        changed = [(weight, np.array(matrix, np.float32)) for weight, matrix in matrices]
        before = [(weight, np.array(self.matrix(weight))) for weight, _ in changed]
        try:
            self.replace(changed)
            yield self.run
        finally:
            self.replace(before)

    def layer_inputs(
        self, weights: Iterable[Weight], dataset: Dataset, threads: int = 1
    ) -> Iterator[tuple[Weight, LayerInputs]]:
        """Statistics of what enters the layers of ``weights``; those whose inputs cannot be watched are left out.

        Args:
            dataset: Streamed; memory does not grow with its rows.
        """
        return iter(())


def finite_matrix(model: CompressibleModel, weight: Weight) -> Floats:
    """The values of a weight that a technique can go by.

    Raises:
        NumericalFailure: One of them is NaN or infinite.
    """
    matrix = model.matrix(weight)
    if not np.isfinite(matrix).all():
        raise NumericalFailure(
            f"{weight.layer}: the weight {weight.name} holds NaN or infinity.",
            hint="Exclude the layer, or repair the model.",
        )
    return matrix


def as_compressible(model: Model) -> CompressibleModel:
    """``model`` as what techniques work on weight by weight."""
    if not isinstance(model, CompressibleModel):
        raise TypeError(f"the weights of {type(model).__name__} cannot be changed one by one")
    return model


def selected(
    model: CompressibleModel, include: tuple[str, ...], exclude: tuple[str, ...], smallest: int
) -> tuple[list[Weight], list[Weight]]:
    """All weights of at least ``smallest`` elements, and those of them that the globs leave in.

    Of a model so small that it has no such weight, all weights: whoever compresses it wants to see what happens.
    """
    everything = model.weights()
    large = [weight for weight in everything if weight.size >= smallest] or list(everything)
    return large, [weight for weight in large if weight.is_selected(include, exclude)]
