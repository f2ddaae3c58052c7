import pytest

from workers.compression.quantization.uniform import Grid
from workers.compression.specs.job import Target
from workers.compression.techniques.quantize.targets import WeightKind, weights_for


@pytest.mark.parametrize(
    ("hardware", "scheme", "kind"),
    [
        ("cpu-avx2", "auto", WeightKind(Grid(signed=True), is_unsigned=True)),
        ("cpu-avx2", "symmetric", WeightKind(Grid(signed=True, bits=7))),
        ("cpu-vnni", "auto", WeightKind(Grid(signed=True))),
        ("cpu-arm64", "symmetric", WeightKind(Grid(signed=True))),
        ("cpu-vnni", "affine", WeightKind(Grid(signed=False))),
    ],
)
def test_weights_never_saturate_on_their_target(hardware: str, scheme: str, kind: WeightKind) -> None:
    assert weights_for(Target(hardware=hardware), scheme) == kind
