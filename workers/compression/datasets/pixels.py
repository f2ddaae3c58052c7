"""Encoded images to the tensor a model takes."""

import numpy as np

from workers.compression.datasets.image_folder import decode
from workers.compression.datasets.source import Array
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.job import Preprocessing
from workers.compression.specs.messages import Port


class Pixels:
    """Decodes, resizes, scales and normalises images as the preprocessing says and the input's shape wants."""

    def __init__(self, port: Port, preprocessing: Preprocessing) -> None:
        if len(port.shape) != 4:
            raise DatasetMismatch(f"Images fill an input of four axes; {port.name} has the shape {list(port.shape)}.")
        self._port = port
        self._given = preprocessing
        self._settings = preprocessing.image()
        last = port.shape[3]
        inferred = "nhwc" if last in (1, 3) and port.shape[1] not in (1, 3) else "nchw"
        self._layout = preprocessing.layout or inferred
        axes = port.shape[1:] if self._layout == "nhwc" else (port.shape[2], port.shape[3], port.shape[1])
        height, width, channels = (axis if isinstance(axis, int) and axis > 0 else None for axis in axes)
        self._channels = channels or (len(self._settings.mean) or 3)
        self._size = self._settings.size or ((height, width) if height and width else None)
        self._check(height, width, channels)

    def encode(self, images: Array) -> Array:
        """The input for a batch of encoded images (objects of ``bytes``)."""
        decoded = [decode(image, self._channels, self._size) for image in images]
        if len({pixels.shape for pixels in decoded}) > 1:
            raise DatasetMismatch(
                "The images differ in size and the model has no fixed size.", hint='Set preprocessing {"size": [h, w]}.'
            )
        stacked = np.stack(decoded)
        if not (self._port.dtype == "uint8" and self._given.scale is None):
            stacked = self._normalised(stacked)
        if self._layout == "nchw":
            stacked = stacked.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(stacked.astype(self._port.dtype))

    def _normalised(self, pixels: Array) -> Array:
        values = pixels.astype(np.float32) * np.float32(self._settings.scale)
        if self._settings.mean:
            values -= np.array(self._settings.mean, np.float32)
        if self._settings.std:
            values /= np.array(self._settings.std, np.float32)
        return values

    def _check(self, height: int | None, width: int | None, channels: int | None) -> None:
        if channels not in (None, 1, 3):
            raise DatasetMismatch(f"Images have 1 or 3 channels; the input {self._port.name} has {channels}.")
        if self._size is not None and (height or self._size[0], width or self._size[1]) != self._size:
            raise DatasetMismatch(f"Preprocessing makes images of {self._size}; the model takes {(height, width)}.")
        for name, values in (("mean", self._settings.mean), ("std", self._settings.std)):
            if len(values) not in (0, 1, self._channels):
                raise DatasetMismatch(
                    f"Preprocessing gives {len(values)} values of {name} for {self._channels} channels."
                )
        if 0.0 in self._settings.std:
            raise DatasetMismatch("Preprocessing divides by a std of 0.")
