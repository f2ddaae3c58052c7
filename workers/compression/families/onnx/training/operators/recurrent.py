"""Recurrent layers, one step in time after the other."""

from collections.abc import Callable

import torch

from workers.compression.families.onnx.training.operators.call import Call, Limits, Table, Tensor

_Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""What one direction does with the input's share of the gates at one time and its state; the first is its output."""


def _run(step: _Step, inputs: Tensor, state: tuple[Tensor, ...], *, reverse: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs [time, rows, hidden] in the order of the inputs, and the last state."""
    made: list[Tensor] = []
    for row in reversed(inputs.unbind()) if reverse else inputs.unbind():
        state = step(row, state)
        made.append(state[0])
    return torch.stack(made[::-1] if reverse else made), state


def _lstm_step(recurrence: Tensor, bias: Tensor) -> _Step:
    def step(row: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, cell = state
        gates = row + hidden @ recurrence.T + bias
        into, out, forget, new = gates.chunk(4, -1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(cell), cell

    return step


def _gru_step(recurrence: Tensor, bias: Tensor, *, linear_before_reset: bool) -> _Step:
    size = recurrence.shape[-1]

    def step(row: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (hidden,) = state
        gates = torch.sigmoid(row[:, : 2 * size] + hidden @ recurrence[: 2 * size].T + bias[: 2 * size])
        update, reset = gates.chunk(2, -1)
        if linear_before_reset:
            past = reset * (hidden @ recurrence[2 * size :].T + bias[2 * size :])
        else:
            past = (reset * hidden) @ recurrence[2 * size :].T + bias[2 * size :]
        return ((1 - update) * torch.tanh(row[:, 2 * size :] + past) + update * hidden,)

    return step


def _directions(
    call: Call,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    starts: tuple[Tensor | None, ...],
    step_of: Callable[[int, Tensor], _Step],
) -> tuple[Tensor, ...]:
    """Runs one or both directions over ``x``, [time, rows, size]; gives Y and the last state of each kind."""
    whole, states = [], []
    for at, weight in enumerate(weights):
        size = weight.shape[0]
        own, recurrent = (x.new_zeros(size),) * 2 if bias is None else bias[at].chunk(2)
        hidden = call.integer("hidden_size", 1)
        state = tuple(x.new_zeros(x.shape[1], hidden) if start is None else start[at] for start in starts)
        reverse = at == 1 or call.text("direction", "forward") == "reverse"
        made, last = _run(step_of(at, recurrent), x @ weight.T + own, state, reverse=reverse)
        whole.append(made)
        states.append(last)
    return torch.stack(whole, 1), *(torch.stack(found) for found in zip(*states, strict=True))


def _lstm(
    call: Call,
    x: Tensor,
    weights: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    _lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
) -> tuple[Tensor, ...]:
    return _directions(call, x, weights, bias, (hidden, cell), lambda at, added: _lstm_step(recurrence[at], added))


def _gru(
    call: Call,
    x: Tensor,
    weights: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    _lengths: Tensor | None = None,
    hidden: Tensor | None = None,
) -> tuple[Tensor, ...]:
    before = bool(call.integer("linear_before_reset", 0))
    return _directions(
        call,
        x,
        weights,
        bias,
        (hidden,),
        lambda at, added: _gru_step(recurrence[at], added, linear_before_reset=before),
    )


TABLE: Table = {"GRU": _gru, "LSTM": _lstm}


def _limit(call: Call) -> str | None:
    if call.given & {4, 7}:
        return "it has lengths of sequences or peepholes"
    usual = ["Sigmoid", "Tanh", "Tanh"] if call.operator == "LSTM" else ["Sigmoid", "Tanh"]
    found = call.attributes.get("activations", usual)
    if found != usual * (len(found) // len(usual)):
        return "its activations are not the usual ones"
    if "clip" in call.attributes or call.integer("input_forget", 0) or call.integer("layout", 0):
        return "it clips, couples gates or has rows first"
    return None


LIMITS: Limits = {"GRU": _limit, "LSTM": _limit}
