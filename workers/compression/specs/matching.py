"""How a dataset's features reach a model's inputs: by name where names agree, else into the only input there is.

Pure, so that a job whose data does not fit is turned down when it is submitted, by the same rules that the engine
follows when it makes batches.
"""

import math
from dataclasses import dataclass

from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import Port

TEXT_DTYPE = "str"
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Assignment:
    """What fills one input.

    Args:
        port: The model's input.
        features: Names of the features; several are columns that stand side by side. Empty for tokens and images,
            which are made from the whole row.
        batch_axis: The input's axis that counts rows; None for a constant.
    """

    port: Port
    features: tuple[str, ...]
    batch_axis: int | None


def assign_inputs(
    dataset_format: DatasetFormat, features: tuple[Port, ...], inputs: tuple[Port, ...]
) -> tuple[Assignment, ...]:
    """Assigns a dataset's features to a model's inputs.

    Raises:
        DatasetMismatch: An input that nothing fills, or a shape that does not fit; the detail names both.
    """
    if not inputs:
        raise DatasetMismatch("The model has no inputs that data could be fed to.")
    if is_text(features):
        return tuple(_assign_tokens(port) for port in inputs)
    if dataset_format is DatasetFormat.IMAGE_FOLDER:
        if len(inputs) != 1:
            raise DatasetMismatch(f"Images fill one input; the model has {len(inputs)}: {_names(inputs)}.")
        return (Assignment(inputs[0], (), 0),)
    by_name = {feature.name: feature for feature in features}
    if all(port.name in by_name for port in inputs):
        return tuple(_assign_feature(port, by_name[port.name]) for port in inputs)
    return (_assign_only_input(features, inputs),)


def is_text(features: tuple[Port, ...]) -> bool:
    """Whether the features are text that a tokenizer has to turn into numbers."""
    return any(feature.dtype == TEXT_DTYPE for feature in features)


def batch_axis(port: Port, sample: tuple[int, ...]) -> int | None:
    """The axis of ``port`` that counts rows when one row has the shape ``sample``; None if none fits.

    A symbolic first axis is it, or one of length 1; else the first symbolic axis (recurrent states keep the batch
    second); else a fixed first axis.
    """
    symbolic = [axis for axis, length in enumerate(port.shape) if _is_free(length)]
    first = [0] if port.shape and (_is_free(port.shape[0]) or port.shape[0] == 1) else []
    for axis in (*first, *symbolic, 0):
        rest = port.shape[:axis] + port.shape[axis + 1 :]
        if len(rest) == len(sample) and all(_is_free(a) or a == b for a, b in zip(rest, sample, strict=True)):
            return axis
    return None


def fixed_batch(assignments: tuple[Assignment, ...]) -> int | None:
    """The number of rows that the model takes at a time, where it is fixed."""
    lengths = {
        length
        for found in assignments
        if found.batch_axis is not None
        for length in found.port.shape[found.batch_axis : found.batch_axis + 1]
        if isinstance(length, int) and length > 0
    }
    if len(lengths) > 1:
        raise DatasetMismatch("The model's inputs have different fixed batch sizes.")
    return lengths.pop() if lengths else None


def _is_free(length: int | str) -> bool:
    return isinstance(length, str) or length < 0


def _names(ports: tuple[Port, ...]) -> str:
    return ", ".join(port.name for port in ports[:20])


def _assign_tokens(port: Port) -> Assignment:
    if port.name not in TOKEN_INPUTS or len(port.shape) != 2:
        raise DatasetMismatch(
            f"Text fills token inputs of shape [batch, length] ({', '.join(TOKEN_INPUTS)}), "
            f"not {port.name} {list(port.shape)}."
        )
    return Assignment(port, (), 0)


def _assign_feature(port: Port, feature: Port) -> Assignment:
    if not feature.shape:
        if any(_is_free(length) or length != 1 for length in port.shape):
            raise _shape_mismatch(port, feature)
        return Assignment(port, (feature.name,), None)
    sample = tuple(int(length) for length in feature.shape[1:])
    axis = batch_axis(port, sample)
    if axis is None and not sample:
        axis = batch_axis(port, (1,))
    if axis is None:
        raise _shape_mismatch(port, feature)
    return Assignment(port, (feature.name,), axis)


def _assign_only_input(features: tuple[Port, ...], inputs: tuple[Port, ...]) -> Assignment:
    rows = [feature for feature in features if feature.shape]
    missing = [port.name for port in inputs if port.name not in {feature.name for feature in features}]
    if len(inputs) != 1:
        raise DatasetMismatch(
            f"The dataset has nothing for the model's inputs {', '.join(missing[:20])}; it has {_names(features)}.",
            hint="Name the arrays or columns like the model's inputs.",
        )
    if len(rows) == 1 and len(rows[0].shape) > 1:
        return _assign_feature(inputs[0], rows[0])
    if not rows or any(len(feature.shape) != 1 for feature in rows):
        raise DatasetMismatch(f"None of the arrays {_names(features)} is named like the input {inputs[0].name}.")
    return _assign_columns(inputs[0], rows)


def _assign_columns(port: Port, columns: list[Port]) -> Assignment:
    """Columns side by side are one row of ``[batch, features]``, or fill the fixed shape of the input in order."""
    sample = port.shape[1:]
    count = len(columns)
    lengths = [length for length in sample if isinstance(length, int) and length >= 0]
    fits = batch_axis(port, (count,)) == 0 or (count == 1 and len(port.shape) == 1)
    if not fits and (len(lengths) < len(sample) or math.prod(lengths) != count):
        raise DatasetMismatch(
            f"The dataset has {count} feature columns; the input {port.name} has the shape {list(port.shape)}.",
            hint="Set target_column if one of the columns is the label.",
        )
    return Assignment(port, tuple(column.name for column in columns), 0)


def _shape_mismatch(port: Port, feature: Port) -> DatasetMismatch:
    return DatasetMismatch(
        f"Feature {feature.name} of shape {list(feature.shape)} (rows first) does not fit the input {port.name} "
        f"of shape {list(port.shape)}."
    )
