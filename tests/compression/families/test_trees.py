import io
import json
import os
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from workers.compression.context import Context
from workers.compression.families.trees.model import TreeModel
from workers.compression.families.trees.skops_file import inspect, open_model
from workers.compression.specs.errors import Code, DatasetMismatch, EngineError, InvalidModel, UnsafeModel
from workers.compression.specs.formats import Family

CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
WORDS = np.where(CANCER[1] == 1, "benign", "malignant")

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "tree of words": lambda: DecisionTreeClassifier(max_depth=4).fit(CANCER[0], WORDS),
    "tree of values": lambda: DecisionTreeRegressor(max_depth=4).fit(*DIABETES),
    "extra tree": lambda: ExtraTreeClassifier(max_depth=4).fit(*CANCER),
    "forest": lambda: RandomForestClassifier(5, random_state=0, class_weight="balanced").fit(*CANCER),
    "forest of values": lambda: RandomForestRegressor(5, random_state=np.random.RandomState(1)).fit(*DIABETES),
    "extra trees": lambda: ExtraTreesClassifier(5, random_state=0, n_jobs=3).fit(CANCER[0], WORDS),
    "extra trees of values": lambda: ExtraTreesRegressor(5, random_state=0).fit(*DIABETES),
    "booster": lambda: GradientBoostingClassifier(n_estimators=4).fit(*CANCER),
    "booster of three classes": lambda: GradientBoostingClassifier(n_estimators=3).fit(CANCER[0], np.arange(569) % 3),
    "booster of values": lambda: GradientBoostingRegressor(n_estimators=4, loss="huber").fit(*DIABETES),
    "exponential booster": lambda: GradientBoostingClassifier(n_estimators=2, loss="exponential", init="zero").fit(
        *CANCER
    ),
    "histogram booster": lambda: HistGradientBoostingClassifier(max_iter=4).fit(*CANCER),
    "histogram booster of values": lambda: HistGradientBoostingRegressor(max_iter=4, loss="poisson").fit(*DIABETES),
}


@lru_cache
def fitted(name: str) -> Any:
    return ESTIMATORS[name]()


def saved(estimator: Any, path: Path, **options: Any) -> Path:
    skops.io.dump(estimator, path, **options)
    return path


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(scratch=tmp_path)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_served_estimator_predicts_as_scikit_learn_does_and_survives_saving(
    name: str, tmp_path: Path, context: Context
) -> None:
    estimator = fitted(name)
    rows = (CANCER if estimator.n_features_in_ == 30 else DIABETES)[0].astype(np.float32)
    model = open_model(saved(estimator, tmp_path / "m.skops"), context)
    wanted = estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else estimator.predict(rows)
    np.testing.assert_array_equal(model.run({"input": rows.astype(model.inputs[0].dtype)})[0], wanted)
    model.changed(estimator).save(tmp_path / "again.skops")
    reopened = open_model(tmp_path / "again.skops", context)
    np.testing.assert_array_equal(reopened.run({"input": rows.astype(model.inputs[0].dtype)})[0], wanted)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_model_is_the_same_bytes_even_after_a_round_trip(name: str, tmp_path: Path, context: Context) -> None:
    TreeModel(fitted(name), zipfile.ZIP_STORED).save(tmp_path / "one.skops")
    loaded = open_model(tmp_path / "one.skops", context)
    loaded.changed(loaded.estimator).save(tmp_path / "two.skops")
    assert (tmp_path / "one.skops").read_bytes() == (tmp_path / "two.skops").read_bytes()


def test_saving_gains_nothing_by_itself_and_keeps_the_compression(tmp_path: Path, context: Context) -> None:
    forest = fitted("forest")
    plain = saved(forest, tmp_path / "plain.skops")
    TreeModel(forest, zipfile.ZIP_STORED).save(tmp_path / "again.skops")
    assert (tmp_path / "again.skops").stat().st_size == plain.stat().st_size
    deflated = open_model(saved(forest, tmp_path / "d.skops", compression=zipfile.ZIP_DEFLATED), context)
    changed = deflated.changed(deflated.estimator)
    assert abs(changed.size_bytes() / (tmp_path / "d.skops").stat().st_size - 1) < 0.05


def test_inspection_counts_trees_and_their_numbers(tmp_path: Path, context: Context) -> None:
    forest = fitted("forest")
    found = inspect(saved(forest, tmp_path / "m.skops"), tmp_path, context)
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    assert found.family is Family.TREE_ENSEMBLE
    assert found.parameters == nodes * (8 + 2)
    assert found.details["trees"] == 5
    assert found.inputs[0].shape == ("batch", 30)
    assert found.outputs[0].shape == ("batch", 2)
    assert len(found.tensors) == 10


def test_probability_columns_are_the_labels_where_labels_are_numbers(tmp_path: Path, context: Context) -> None:
    labels = np.where(CANCER[1] == 1, 7, 2)
    model = open_model(saved(DecisionTreeClassifier(max_depth=3).fit(CANCER[0], labels), tmp_path / "m"), context)
    (probabilities,) = model.run({"input": CANCER[0].astype(np.float32)})
    assert probabilities.shape == (569, 8)
    assert np.mean(probabilities.argmax(axis=1) == labels) > 0.95


def test_a_file_cannot_choose_the_number_of_threads(tmp_path: Path, context: Context) -> None:
    forest = RandomForestClassifier(3, n_jobs=5000, verbose=3).fit(*CANCER)
    model = open_model(saved(forest, tmp_path / "m"), context)
    model.run({"input": CANCER[0].astype(np.float32)})
    model.changed(model.estimator).save(tmp_path / "n")
    assert open_model(tmp_path / "n", context).estimator.n_jobs == 5000


def test_rows_of_another_width_are_a_mismatch(tmp_path: Path, context: Context) -> None:
    model = open_model(saved(fitted("forest"), tmp_path / "m"), context)
    with pytest.raises(DatasetMismatch):
        model.run({"input": np.zeros((2, 29), np.float32)})


def test_the_snippet_opens_the_file(tmp_path: Path, context: Context) -> None:
    model = open_model(saved(fitted("histogram booster"), tmp_path / "m.skops"), context)
    assert model.load_snippet("m.skops").splitlines()[-1] == (
        'model = skops.io.load("m.skops", trusted='
        "['sklearn.tree._tree.Tree', 'sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor'])"
    )


@pytest.mark.parametrize(
    "estimator",
    [
        SVC().fit(*CANCER),
        make_pipeline(StandardScaler(), RandomForestClassifier(2)).fit(*CANCER),
        LogisticRegression(max_iter=5000).fit(CANCER[0][:, :2], CANCER[1]),
        MultiOutputRegressor(DecisionTreeRegressor(max_depth=2)).fit(DIABETES[0], np.stack([DIABETES[1]] * 2, 1)),
        DecisionTreeRegressor(max_depth=2).fit(DIABETES[0], np.stack([DIABETES[1]] * 2, 1)),
        HistGradientBoostingRegressor(max_iter=2, categorical_features=[1]).fit(*DIABETES),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_other_estimators_are_not_served_and_it_is_said_so(estimator: Any, tmp_path: Path, context: Context) -> None:
    with pytest.raises(EngineError) as refusal:
        open_model(saved(estimator, tmp_path / "m"), context)
    assert refusal.value.code in (Code.UNSUPPORTED_FORMAT, Code.UNSAFE_MODEL)
    assert refusal.value.reason in ("sklearn_estimator", "sklearn_untrusted_type")


def test_a_function_of_another_module_is_unsafe_and_never_called(tmp_path: Path, context: Context) -> None:
    marker = tmp_path / "marker"
    call = make_pipeline(FunctionTransformer(os.mkdir, kw_args={"path": str(marker)}), DecisionTreeClassifier())
    with pytest.raises(UnsafeModel) as refusal:
        open_model(saved(call, tmp_path / "m"), context)
    assert refusal.value.reason == "sklearn_untrusted_type"
    assert not marker.exists()


def rewritten(source: Path, path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy with each entry passed through ``change``; None leaves it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def with_nodes(field: str, node: int, value: float) -> Callable[[str, bytes], bytes]:
    """Sets one field of one node wherever an entry holds nodes."""

    def change(_: str, content: bytes) -> bytes:
        if not content.startswith(b"\x93NUMPY"):
            return content
        array = np.load(io.BytesIO(content), allow_pickle=False)
        if array.dtype.names is None or field not in array.dtype.names:
            return content
        array[field][node] = value
        out = io.BytesIO()
        np.save(out, array)
        return out.getvalue()

    return change


@pytest.mark.parametrize(
    ("name", "field", "node", "value"),
    [
        ("tree of words", "left_child", 0, 10**9),
        ("tree of words", "left_child", 0, 0),
        ("tree of words", "right_child", 1, 0),
        ("tree of words", "left_child", 1, -7),
        ("tree of words", "right_child", 0, 2),
        ("tree of words", "feature", 0, 30),
        ("tree of words", "feature", 0, -2),
        ("tree of words", "threshold", 0, np.nan),
        ("booster", "left_child", 0, 10**9),
        ("forest of values", "feature", 0, 10**6),
        ("histogram booster", "left", 0, 10**6),
        ("histogram booster", "right", 0, 0),
        ("histogram booster", "feature_idx", 0, 30),
        ("histogram booster", "is_categorical", 0, 1),
        ("histogram booster", "value", 0, np.inf),
    ],
)
def test_a_tree_that_would_crash_the_library_is_refused_before_it_predicts(
    name: str, field: str, node: int, value: float, tmp_path: Path, context: Context
) -> None:
    source = saved(fitted(name), tmp_path / "good")
    with pytest.raises(InvalidModel) as refusal:
        open_model(rewritten(source, tmp_path / "bad", with_nodes(field, node, value)), context)
    assert refusal.value.reason == "sklearn_structure"


def schema_edit(edit: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        if name != "schema.json":
            return content
        schema = json.loads(content)
        edit(schema["content"]["content"])
        return json.dumps(schema).encode()

    return change


def number(attributes: dict[str, Any], name: str, value: Any) -> None:
    attributes[name] = attributes["n_features_in_"] | {"content": json.dumps(value), "__id__": 1}


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("tree of words", lambda found: number(found, "n_features_in_", 10**12)),
        ("tree of words", lambda found: number(found, "n_features_in_", "many")),
        ("tree of words", lambda found: number(found, "classes_", None)),
        ("tree of words", lambda found: found.pop("tree_")),
        ("tree of words", lambda found: found["tree_"].pop("content")),
        ("booster", lambda found: number(found, "learning_rate", "fast")),
        ("booster", lambda found: found.__setitem__("init_", found["estimators_"])),
        ("booster of three classes", lambda found: number(found, "n_classes_", 2)),
        ("histogram booster", lambda found: number(found, "n_trees_per_iteration_", 2)),
        ("histogram booster", lambda found: found.pop("_bin_mapper")),
        ("forest", lambda found: found.__setitem__("estimators_", found["classes_"])),
    ],
)
def test_a_schema_that_contradicts_its_arrays_is_refused(
    name: str, edit: Callable[[dict[str, Any]], None], tmp_path: Path, context: Context
) -> None:
    source = saved(fitted(name), tmp_path / "good")
    with pytest.raises(InvalidModel) as refusal:
        open_model(rewritten(source, tmp_path / "bad", schema_edit(edit)), context)
    assert refusal.value.reason == "sklearn_structure"


def test_a_header_that_asks_for_terabytes_is_refused(tmp_path: Path, context: Context) -> None:
    header = b"\x93NUMPY\x01\x00F\x00{'descr': '<f8', 'fortran_order': False, 'shape': (549755813888,), }  \n"
    source = saved(fitted("tree of words"), tmp_path / "good")
    path = rewritten(source, tmp_path / "bad", lambda name, content: header if name.endswith(".npy") else content)
    with pytest.raises(InvalidModel):
        open_model(path, context)


def test_pickled_arrays_are_unsafe(tmp_path: Path, context: Context) -> None:
    out = io.BytesIO()
    np.save(out, np.array([{}], dtype=object), allow_pickle=True)
    source = saved(fitted("tree of words"), tmp_path / "good")
    path = rewritten(
        source, tmp_path / "bad", lambda name, content: out.getvalue() if name.endswith(".npy") else content
    )
    with pytest.raises(UnsafeModel):
        open_model(path, context)
