"""Archives of tree ensembles against their bars: ``python -m tests.benchmarks.tree_archive``.

Forests of 200 trees on real tables, as scikit-learn fits them by default. An archive counts only if it unpacks to the
bytes of the model file and the model in it predicts bit for bit the same. What it is held against is joblib's own dump.
"""

import io
import lzma
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skl2onnx
import skops.io
import zstandard
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from workers.compression.archive.packing import pack
from workers.compression.archive.unpacking import unpack
from workers.compression.families.trees.gate import TRUSTED
from workers.compression.families.trees.writing import skops_bytes

TREES = 200
STAGES = 100
TIMES_JOBLIB, TIMES_ZSTD = 40.0, 5.0
TABLES: dict[str, Callable[..., Any]] = {
    "digits": load_digits,
    "breast cancer": load_breast_cancer,
    "wine": load_wine,
    "diabetes": load_diabetes,
}
REGRESSION = ("diabetes",)


@dataclass(frozen=True)
class Sizes:
    """Bytes of one model in each form."""

    joblib: int
    zstd: int
    lzma: int
    skops: int
    onnx: int
    ours: int


def main() -> int:
    """Prints every table; 0 if the forests meet their bars."""
    met = _bars(list(_measured("forests", _forest)))
    boosters = list(_measured("boosters", _booster))
    for title, ratio in (("joblib", lambda sizes: sizes.joblib), ("joblib, zstd -19", lambda sizes: sizes.zstd)):
        print(
            f"  median: {statistics.median(ratio(sizes) / sizes.ours for sizes in boosters):.1f}x smaller than {title}"
        )
    return 0 if met else 1


def _forest(name: str) -> Any:
    kind = RandomForestRegressor if name in REGRESSION else RandomForestClassifier
    return kind(TREES, random_state=0, n_jobs=1)


def _booster(name: str) -> Any:
    kind = GradientBoostingRegressor if name in REGRESSION else GradientBoostingClassifier
    return kind(n_estimators=STAGES, random_state=0)


def _measured(title: str, made: Callable[[str], Any]) -> Iterator[Sizes]:
    print(title)
    for name, table in TABLES.items():
        rows, targets = table(return_X_y=True)
        estimator = made(name).fit(rows, targets)
        sizes = _sizes(estimator, rows)
        print(
            f"  {name}, {_nodes(estimator):,} nodes: joblib {sizes.joblib:,}, with zstd -19 {sizes.zstd:,}, with lzma "
            f"{sizes.lzma:,}, skops with zstd -19 {sizes.skops:,}, skl2onnx with zstd -19 {sizes.onnx:,}, ours "
            f"{sizes.ours:,} bytes: {sizes.joblib / sizes.ours:.1f}x and {sizes.zstd / sizes.ours:.2f}x smaller",
            flush=True,
        )
        yield sizes


def _nodes(estimator: Any) -> int:
    return sum(member.tree_.node_count for member in np.asarray(estimator.estimators_).flat)


def _sizes(estimator: Any, rows: Any) -> Sizes:
    dump = io.BytesIO()
    joblib.dump(estimator, dump)
    content = skops_bytes(estimator, zipfile.ZIP_STORED)
    inputs = [("input", FloatTensorType([None, rows.shape[1]]))]
    onnx = skl2onnx.convert_sklearn(estimator, initial_types=inputs).SerializeToString()
    plain = dump.getvalue()
    return Sizes(
        joblib=len(plain),
        zstd=_zstd(plain),
        lzma=len(lzma.compress(plain, preset=9)),
        skops=_zstd(content),
        onnx=_zstd(onnx),
        ours=_archived(estimator, content, rows),
    )


def _zstd(content: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=19).compress(content))


def _archived(estimator: Any, content: bytes, rows: Any) -> int:
    """Bytes of the archive, once it gave back the file and the same predictions."""
    with tempfile.TemporaryDirectory() as folder:
        source, archive, again = (Path(folder) / name for name in ("m.skops", "m.prsz", "again.skops"))
        source.write_bytes(content)
        size = pack(source, archive).archive
        unpack(archive, again)
        if again.read_bytes() != content:
            raise SystemExit("the archive gives back another file")
        said = [_said(model, rows).tobytes() for model in (estimator, skops.io.load(again, trusted=TRUSTED))]
        if said[0] != said[1]:
            raise SystemExit("the unpacked model predicts something else")
        return size


def _said(estimator: Any, rows: Any) -> Any:
    return estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else estimator.predict(rows)


def _bars(forests: list[Sizes]) -> bool:
    met = True
    for title, bar, ratios in (
        ("joblib", TIMES_JOBLIB, [sizes.joblib / sizes.ours for sizes in forests]),
        ("joblib with zstd -19", TIMES_ZSTD, [sizes.zstd / sizes.ours for sizes in forests]),
    ):
        print(f"  median: {statistics.median(ratios):.1f}x smaller than {title}")
        held = min(ratios) >= bar
        print(f"  bar: every forest at least {bar:g}x smaller than {title}: {'met' if held else 'missed'}")
        met &= held
    return met


if __name__ == "__main__":
    sys.exit(main())
