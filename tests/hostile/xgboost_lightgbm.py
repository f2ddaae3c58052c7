"""Boosted trees of other libraries; this version loads none of them."""

import json
from pathlib import Path

from tests.hostile.cases import Catalogue

XGBOOST = Catalogue("xgboost", "model", "model.json")
LIGHTGBM = Catalogue("lightgbm", "model", "model.txt")

BOOSTER = {
    "version": [3, 2, 0],
    "learner": {
        "attributes": {},
        "feature_names": [],
        "gradient_booster": {"name": "gbtree", "model": {"gbtree_model_param": {"num_trees": "0"}, "trees": []}},
        "learner_model_param": {"base_score": "5E-1", "num_class": "0", "num_feature": "4"},
        "objective": {"name": "reg:squarederror"},
    },
}
TEXT = b"tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=3\n"


@XGBOOST.refused("unsupported_format")
def json_model(_: Path) -> bytes:
    return json.dumps(BOOSTER).encode()


@XGBOOST.refused("unsupported_format", filename="model.ubj")
def universal_binary_json(_: Path) -> bytes:
    # {"learner": {…}} in UBJ: object marker, then keys as int64 lengths.
    key = b"L" + (7).to_bytes(8, "big") + b"learner"
    return b"{" + key + b"{" + b"L" + (10).to_bytes(8, "big") + b"attributes{}" + b"}}"


@XGBOOST.refused("unsupported_format", filename="model.model")
def old_binary(_: Path) -> bytes:
    return b"binf" + bytes(256)


@XGBOOST.refused("unsupported_format", "invalid_model")
def json_nested_100_000_deep(_: Path) -> bytes:
    return b'{"learner":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@LIGHTGBM.refused("unsupported_format")
def text_model(_: Path) -> bytes:
    return TEXT + b"objective=regression\nfeature_names=a b c d\n\nTree=0\nnum_leaves=1\n\nend of trees\n"


@LIGHTGBM.refused("unsupported_format")
def text_model_cut_off(_: Path) -> bytes:
    return TEXT


@LIGHTGBM.refused("unsupported_format", filename="model.json")
def json_dump(_: Path) -> bytes:
    return json.dumps({"name": "tree", "version": "v4", "num_class": 1, "tree_info": []}).encode()
