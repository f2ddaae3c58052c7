"""The arrays of scikit-learn's compiled trees inside .npy files: found, taken apart and written again."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NODE = np.dtype(
    {
        "names": [
            "left_child", "right_child", "feature", "threshold", "impurity", "n_node_samples",
            "weighted_n_node_samples", "missing_go_to_left",
        ],
        "formats": ["<i8", "<i8", "<i8", "<f8", "<f8", "<i8", "<f8", "u1"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)  # fmt: skip
_MAGIC = b"\x93NUMPY\x01\x00"
_ALIGNED = 64
_GROWTH = 21
_NODES_HEAD = (
    "{'descr': [('left_child', '<i8'), ('right_child', '<i8'), ('feature', '<i8'), ('threshold', '<f8'), "
    "('impurity', '<f8'), ('n_node_samples', '<i8'), ('weighted_n_node_samples', '<f8'), "
    "('missing_go_to_left', '|u1'), ('', '|V7')], 'fortran_order': False, 'shape': (%d,), }"
)
_VALUES_HEAD = "{'descr': '<f8', 'fortran_order': False, 'shape': (%d, 1, %d), }"


@dataclass(frozen=True)
class Tree:
    """Nodes [n] of ``NODE`` and their values [n, outputs]."""

    nodes: npt.NDArray[np.void]
    values: Floats


def written(tree: Tree) -> tuple[bytes, bytes]:
    """The two .npy files; what lies between the fields of a node is zero."""
    count, outputs = tree.values.shape
    clean = np.zeros(tree.nodes.nbytes, np.uint8)
    records = clean.view(NODE)
    for field in NODE.names or ():
        records[field] = tree.nodes[field]
    return _head(_NODES_HEAD, count) + clean.tobytes(), _head(_VALUES_HEAD, count, outputs) + tree.values.tobytes()


def found(nodes: bytes, values: bytes) -> Tree | None:
    """The tree that ``written`` gives back exactly; None if the two files are anything else."""
    count = (len(nodes) - len(_head(_NODES_HEAD, 0))) // NODE.itemsize
    outputs = (len(values) - len(_head(_VALUES_HEAD, 0, 1))) // (8 * count) if count > 0 else 0
    if outputs < 1 or len(nodes) < count * NODE.itemsize or len(values) < 8 * count * outputs:
        return None
    floats = np.frombuffer(values, "<f8", count * outputs, len(values) - 8 * count * outputs)
    tree = Tree(np.frombuffer(nodes, NODE, count, len(nodes) - count * NODE.itemsize), floats.reshape(count, outputs))
    return tree if written(tree) == (nodes, values) else None


def _head(form: str, count: int, *others: int) -> bytes:
    """As NumPy writes it: room for a longer first axis, then spaces so that the data is aligned."""
    text = form % (count, *others) + " " * (_GROWTH - len(str(count)))
    room = _ALIGNED - (len(_MAGIC) + 2 + len(text) + 1) % _ALIGNED
    line = text + " " * room + "\n"
    return _MAGIC + len(line).to_bytes(2, "little") + line.encode("latin1")
