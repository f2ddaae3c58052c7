"""What plain PyTorch makes of the same small networks with the same rows, epochs and batches."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from tests.benchmarks.peers import Figures, Subject, judged
from tests.benchmarks.training_inputs import lenet, student, write_pt2
from workers.compression.specs.recipe import STEPS_BY_KEY, step_tag
from workers.compression.specs.steps.distill import DistillStep
from workers.compression.specs.training import TrainingStep

SEED = 0
RATE = 2e-3
Rows = tuple[torch.Tensor, torch.Tensor | None]


def spec_of(subject: Subject) -> TrainingStep:
    """The row's step with its defaults filled in."""
    spec = STEPS_BY_KEY[str(step_tag(subject.step))].model_validate(subject.step)
    if not isinstance(spec, TrainingStep):
        raise TypeError(f"{spec.key()} does not train")
    return spec


def rows_of(path: Path | None) -> Rows:
    """``input`` and ``target`` of an .npz; None without labels."""
    if path is None:
        raise ValueError("this peer learns from rows")
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["input"]), torch.from_numpy(arrays["target"]) if "target" in arrays else None


def network_of(path: Path, make: Callable[[int], nn.Module]) -> nn.Module:
    """The eager network with the weights of an exported one."""
    weights = torch.export.load(path).state_dict
    network = make(len(list(weights.values())[-1]))
    network.load_state_dict(weights)
    return network.eval()


def updates(network: nn.Module, count: int, spec: TrainingStep, seed: int = SEED) -> Iterator[torch.Tensor]:
    """Numbers of the rows of each batch; after each, the gradients that the caller left are applied.

    AdamW with linear warm-up and half a cosine, clipped gradients: what our step of the same fields does.
    """
    random = torch.Generator().manual_seed(seed)
    total = max(1, round(spec.epochs * -(-count // spec.batch_size)))
    optimizer = torch.optim.AdamW(network.parameters(), spec.learning_rate or RATE, weight_decay=spec.weight_decay)
    rising = max(1, round(spec.warmup * total))
    up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / rising, total_iters=rising)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - rising))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [up, down], [rising])
    done = 0
    network.train()
    while done < total:
        for chosen in torch.randperm(count, generator=random).split(spec.batch_size):
            if done == total:
                break
            optimizer.zero_grad()
            yield chosen
            nn.utils.clip_grad_norm_(network.parameters(), spec.max_gradient_norm or float("inf"))
            optimizer.step()
            schedule.step()
            done += 1
    network.eval()


def fine_tune(network: nn.Module, rows: Rows, spec: TrainingStep, seed: int = SEED) -> None:
    """Cross-entropy on labels, in place."""
    inputs, labels = rows
    for chosen in updates(network, len(labels), spec, seed):
        functional.cross_entropy(network(inputs[chosen]), labels[chosen]).backward()


def distill(
    network: nn.Module,
    teacher: nn.Module,
    rows: Rows,
    spec: DistillStep,
    seed: int = SEED,
) -> None:
    """Hinton's loss, in place: temperature² times the divergence of the softened outputs, and the labels' share."""
    inputs, labels = rows
    with torch.inference_mode():
        taught = torch.cat([teacher(part) for part in inputs.split(256)]).clone()
    for chosen in updates(network, len(inputs), spec, seed):
        loss = _hinton(network(inputs[chosen]), taught[chosen], spec, None if labels is None else labels[chosen])
        loss.backward()


def _hinton(made: torch.Tensor, taught: torch.Tensor, spec: DistillStep, labels: torch.Tensor | None) -> torch.Tensor:
    soft, softened = (functional.log_softmax(scores / spec.temperature, dim=1) for scores in (made, taught))
    divergence = functional.kl_div(soft, softened, log_target=True, reduction="batchmean")
    if labels is None:
        return divergence * spec.temperature**2
    hard = functional.cross_entropy(made, labels)
    return spec.teacher * spec.temperature**2 * divergence + (1 - spec.teacher) * hard


def plain_transfer(subject: Subject) -> Figures:
    """Weights loaded, last layer made anew where the labels are new, all trained on."""
    torch.manual_seed(SEED)
    rows = rows_of(subject.train)
    network = network_of(subject.model, lenet)
    if subject.step.get("head") == "replace":
        network[-1] = nn.Linear(84, int(rows[1].max()) + 1)
    fine_tune(network, rows, spec_of(subject))
    return judged(subject, write_pt2(network, subject.folder / "peer.pt2"))


def pruned_and_retrained(subject: Subject) -> Figures:
    """``torch.nn.utils.prune.global_unstructured`` and training on under its masks; zeros counted on the original."""
    network = network_of(subject.model, lenet)
    layers = [(layer, "weight") for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    weights = torch.cat([layer.weight.detach().flatten() for layer, _ in layers])
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=int((weights == 0).sum()))
    fine_tune(network, rows_of(subject.train), spec_of(subject))
    for layer, name in layers:
        prune.remove(layer, name)
    return judged(subject, write_pt2(network, subject.folder / "peer.pt2"))


def hinton(subject: Subject) -> Figures:
    """The plain loop of Hinton et al. (2015) into the same student."""
    spec = spec_of(subject)
    if subject.student is None or not isinstance(spec, DistillStep):
        raise ValueError("this peer teaches a student")
    network, teacher = network_of(subject.student, student), network_of(subject.model, lenet)
    distill(network, teacher, rows_of(subject.train), spec)
    return judged(subject, write_pt2(network, subject.folder / "peer.pt2"))


def features_probe(subject: Subject) -> Figures:
    """scikit-learn's logistic regression on what the frozen body makes of the rows, put in as the last layer."""
    images, labels = rows_of(subject.train)
    network = network_of(subject.model, lenet)
    with torch.inference_mode():
        features = network[:-1](images).numpy()
    found = LogisticRegression(max_iter=5000).fit(features, labels.numpy())
    network[-1] = nn.Linear(features.shape[1], len(found.classes_))
    with torch.no_grad():
        network[-1].weight.copy_(torch.tensor(found.coef_))
        network[-1].bias.copy_(torch.tensor(found.intercept_))
    return judged(subject, write_pt2(network, subject.folder / "peer.pt2"))
