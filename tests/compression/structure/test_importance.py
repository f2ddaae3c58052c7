"""How much a network loses with a unit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests import trained
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.torch.pt2 import open_model
from workers.compression.families.torch.structure.reading import read_structure
from workers.compression.pruning.gradients import gradients_by_row
from workers.compression.structure.importance import by_gradients


def test_by_gradients_a_unit_costs_its_value_times_the_derivative_by_it(
    digits: Callable[..., Dataset], tmp_path: Path
) -> None:
    rows = digits("mlp").limited(20)
    context = Context(scratch=tmp_path)
    model = open_model(trained.write_pt2("mlp", tmp_path / "mlp.pt2"), context)
    structure = read_structure(model.program, [trained.example_input("mlp")[:1]]).structure
    weights = model.weights()[1:]

    found_by_row = (
        {weight.name: weight.to_matrix(found[weight.name].numpy()) for weight in weights}
        for found in gradients_by_row(model, weights, rows, "labels", context)
    )
    scores = by_gradients(structure, [(weight, model.matrix(weight)) for weight in weights], found_by_row)

    network, expected = trained.trained("mlp"), [np.zeros(256), np.zeros(128)]
    _, images, _, labels = trained.digits_split()
    for place in rows.order.tolist():
        first = network[:2](torch.from_numpy(images[place]))
        second = network[2:4](first)
        loss = torch.nn.functional.cross_entropy(network[4](second), torch.tensor(labels[place]))
        gradients = torch.autograd.grad(loss, (first, second))
        for number, (hidden, gradient) in enumerate(zip((first, second), gradients, strict=True)):
            expected[number] += np.square((hidden * gradient).detach().double().numpy())
    made = [structure.units[structure.stored[name][0]] for name in ("0.weight", "2.weight")]
    for units, total in zip(made, expected, strict=True):
        np.testing.assert_allclose(scores[units], total, rtol=1e-3, atol=1e-9)
