"""The grammar of symbolic sizes in a ``.pt2``.

torch hands these strings to ``sympy.sympify``, which evaluates them as Python; so only trees of arithmetic over
symbols and bounded numbers pass.
"""

import ast
import re
from typing import Final

from workers.compression.specs.errors import UnsafeModel

_SYMBOL: Final = re.compile(r"(?:s|u|zf|zuf)\d{1,9}")
_ASSUMPTIONS: Final = frozenset({"positive", "integer", "nonnegative", "real", "finite"})
_POWERS: Final = frozenset({"Pow", "PowByNatural"})
_FUNCTIONS: Final = frozenset(
    {
        "Symbol", "Integer", "Add", "Mul", "Rational", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv",
        "CeilDiv", "ModularIndexing", "Where", "Eq", "Equality", "Ne", "Unequality", "Lt", "Le", "Gt", "Ge",
        "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "And", "Or", "Not", "TruncToInt",
        "FloorToInt", "CeilToInt", "RoundToInt", "ToFloat", "TruncToFloat", "IntTrueDiv", "FloatTrueDiv", "Identity",
        *_POWERS,
    }
)  # fmt: skip
_OPERATORS: Final = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod)
_COMPARISONS: Final = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_MAX_LENGTH: Final = 4000
_MAX_POWERS: Final = 2
_LARGEST_EXPONENT: Final = 8
_LARGEST_NUMBER: Final = 1 << 63


def check_expression(text: str) -> None:
    """Raises ``UnsafeModel`` unless ``text`` is plain arithmetic over symbols such as ``s0``."""
    if len(text) > _MAX_LENGTH:
        raise _refused(text)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(text) from error
    powers = 0
    waiting: list[ast.expr] = [tree.body]
    while waiting:
        node = waiting.pop()
        powers += _is_power(node)
        if powers > _MAX_POWERS:
            raise _refused(text)
        waiting.extend(_operands(node, text))


def _operands(node: ast.expr, text: str) -> list[ast.expr]:
    """What is still to be checked below an accepted node."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) <= _LARGEST_NUMBER:
        return []
    if isinstance(node, ast.Name) and (_SYMBOL.fullmatch(node.id) or node.id in ("true", "false")):
        return []
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Not):
        return [node.operand]
    if isinstance(node, ast.BinOp) and (isinstance(node.op, _OPERATORS) or _is_small(node.op, node.right)):
        return [node.left, node.right]
    if isinstance(node, ast.Compare) and all(isinstance(op, _COMPARISONS) for op in node.ops):
        return [node.left, *node.comparators]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        return _arguments(node, node.func.id, text)
    raise _refused(text)


def _arguments(call: ast.Call, function: str, text: str) -> list[ast.expr]:
    if function == "Symbol":
        name = call.args[0] if len(call.args) == 1 else None
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str) and _SYMBOL.fullmatch(name.value)):
            raise _refused(text)
        if not all(word.arg in _ASSUMPTIONS and _is_bool(word.value) for word in call.keywords):
            raise _refused(text)
        return []
    if call.keywords or any(isinstance(argument, ast.Starred) for argument in call.args):
        raise _refused(text)
    if function in _POWERS and (len(call.args) != 2 or not _is_small_exponent(call.args[1])):
        raise _refused(text)
    return list(call.args)


def _is_power(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _POWERS
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)


def _is_small(operator: ast.operator, right: ast.expr) -> bool:
    return isinstance(operator, ast.Pow) and _is_small_exponent(right)


def _is_small_exponent(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer" and node.args:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value <= _LARGEST_EXPONENT


def _is_bool(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _refused(text: str) -> UnsafeModel:
    return UnsafeModel(
        f"The symbolic size {text[:100]!r} is more than arithmetic over symbols.", reason="pt2_expression"
    )
