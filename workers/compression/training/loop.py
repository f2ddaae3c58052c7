"""The training loop: updates, validation, the best weights, checkpoints, and going on from one.

Everything but weights and optimizer state is a function of the update's number: the order of the rows, the rate, what
dropout drops. So a training that was cut off ends with the same bytes as one that was not.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import PrecisionType

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.specs.errors import EngineError, NumericalFailure
from workers.compression.specs.training import TrainingStep
from workers.compression.training import checkpoints, optimizers
from workers.compression.training.checkpoints import Saved, Standing
from workers.compression.training.curves import Curves
from workers.compression.training.failures import explaining_gradients
from workers.compression.training.feeding import Feed
from workers.compression.training.masking import Masking
from workers.compression.training.network import Network
from workers.compression.training.objectives import Labelled, Objective, Rows
from workers.compression.training.optimizers import Rates
from workers.compression.training.schedule import Plan, seed_of
from workers.compression.training.validation import Forward, Verdict, judge

_INFINITE = 1e30
"""Beyond it a loss is as good as infinite, and no figure that a report takes."""


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn.

    Args:
        train: Rows that updates are computed from.
        validation: Rows that the best weights are chosen by; None: the last ones are taken.
        feed: How rows reach the network.
        objective: What to minimize.
        judged_by: What labels judge by; None: the loss alone.
        rates: Learning rates.
        joins: By name of a parameter the number of the first update it takes part in; 0 for all others.
        via: A module that shares the network's parameters and also gives hidden states.
        masking: Takes weights away between updates; the best weights are chosen among those after the last change.
    """

    train: Dataset
    validation: Dataset | None
    feed: Feed
    objective: Objective
    judged_by: Labelled | None
    rates: Rates
    joins: Mapping[str, int] = field(default_factory=dict)
    via: torch.nn.Module | None = None
    masking: Masking | None = None


@dataclass(frozen=True)
class Trained:
    """How a training went.

    Args:
        updates: Done in all.
        epochs: The same in passes over the rows.
        best_update: After which the weights were taken.
        verdict: On them; None without validation rows.
    """

    updates: int
    epochs: float
    best_update: int
    verdict: Verdict | None


def train(network: Network, lesson: Lesson, spec: TrainingStep, context: Context) -> Trained:
    """Trains in place; afterwards the network holds its best weights.

    Raises:
        NumericalFailure: The loss or the gradients are not finite; the detail names the update.
        UnsupportedOperator: An operator has no derivative, or cannot be deterministic although the step asks for it.
    """
    saved = _previous(network, spec, context)
    threads = saved.standing.threads if saved else context.threads
    lesson = _with_full_batches(lesson, context)
    with _surroundings(spec, threads), explaining_gradients():
        return _Training(network, lesson, spec, context, threads, saved).run()


def _with_full_batches(lesson: Lesson, context: Context) -> Lesson:
    """The lesson without validation where the rows for it do not fill the one batch that the network takes."""
    aside = lesson.validation
    if aside is None or lesson.feed.fills_a_batch(aside):
        return lesson
    context.warn(
        f"{aside.rows} rows set aside for validation do not fill a batch of {lesson.feed.together(aside)}, which the "
        "model takes at a time: nothing is validated and the last weights are taken."
    )
    return replace(lesson, validation=None)


class _Training:
    def __init__(
        self, network: Network, lesson: Lesson, spec: TrainingStep, context: Context, threads: int, saved: Saved | None
    ) -> None:
        self.lesson, self.spec, self.context, self.threads = lesson, spec, context, threads
        cycles = lesson.masking.cycles if lesson.masking else 1
        self.plan = Plan.of(spec, lesson.feed.count(lesson.train), cycles)
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=_precision(spec))
        self.network = network
        self.parameters = network.learning()
        optimizer = optimizers.build(spec, self.parameters, lesson.rates)
        self.order = optimizers.names_in_order(optimizer, self.parameters)
        self.prepared, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.forward = Forward(self.prepared, lesson.via)
        self.standing = saved.standing if saved else Standing(threads=threads)
        self.curves = Curves(context, self.plan.updates, self.standing.curves)
        self.best: dict[str, torch.Tensor] = {}
        self._checkpointed = time.monotonic()
        if saved is not None:
            self._take_over(saved)

    def run(self) -> Trained:
        if not self.standing.finished:
            if self.standing.update == 0:
                self._validate(0)
            self._updates()
            self._checkpoint(finished=True)
        done = self.standing.update
        if self.best:
            self.network.restore(self.best)
        self.network = self.accelerator.unwrap_model(self.prepared, keep_fp32_wrapper=False)
        self.network.settle()
        self.context.curves.extend(self.curves.made())
        self._warn_of_no_gain()
        return Trained(done, self.plan.epochs_at(done), self.standing.best_update, self.standing.best)

    def _updates(self) -> None:
        while (update := self.standing.update) < self.plan.updates and not self._is_stalled():
            epoch, start = self.plan.place(update)
            with closing(self.lesson.feed.epoch(self.lesson.train, epoch, self.accelerator.device, start)) as batches:
                self._epoch(batches)

    def _epoch(self, batches: Iterator[Rows]) -> None:
        """What is left of an epoch, or of the training."""
        for group in _groups(batches, self.plan.accumulation):
            self._update(self.standing.update, group)
            done = self.standing.update + 1
            self.standing = self.standing.model_copy(update={"update": done})
            if self.plan.is_validated(done):
                self._validate(done)
            if done == self.plan.updates or self._is_stalled():
                return
            self._checkpoint_when_due()

    def _update(self, update: int, group: list[Rows]) -> None:
        torch.manual_seed(seed_of(self.context.seed, update))
        if self.lesson.masking is not None:
            self.lesson.masking.before(update, self.plan, cast("torch.optim.Optimizer", self.optimizer))
        self.network.train()
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(update >= self.lesson.joins.get(name, 0))
        share = self.plan.rate(update)
        optimizers.set_rates(cast("torch.optim.Optimizer", self.optimizer), share)
        count = sum(rows.count for rows in group)
        total = 0.0
        for number, rows in enumerate(group, start=1):
            last = number == len(group)
            with nullcontext() if last else self.accelerator.no_sync(self.prepared):
                loss = self.lesson.objective.loss(self.forward(rows), rows) * (rows.count / count)
                self._require_finite(loss.item(), "loss", update)
                self.accelerator.backward(loss)
            total += loss.item()
        self._clip(update)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.curves.update(update + 1, total, self.lesson.rates.peak * share)
        epochs = f"epoch {self.plan.epochs_at(update + 1):.2f} of {self.plan.epochs_at(self.plan.updates):g}"
        self.context.progress((update + 1) / self.plan.updates, f"{epochs}, loss {total:.4g}")

    def _clip(self, update: int) -> None:
        limit = self.spec.max_gradient_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), limit)
        # Where there is a scaler, it finds gradients that overflow, and skips such an update by itself.
        if norm is not None and self.accelerator.scaler is None:
            self._require_finite(float(norm), "gradient", update)

    def _require_finite(self, value: float, what: str, update: int) -> None:
        if not abs(value) < _INFINITE:
            raise NumericalFailure(
                f"The {what} became {value} in update {update + 1} of {self.plan.updates} "
                f"(epoch {self.plan.epochs_at(update) + 1:.0f}).",
                reason="diverged",
                hint="Lower learning_rate, raise warmup, or let max_gradient_norm clip gradients.",
            )

    def _validate(self, update: int) -> None:
        if self.lesson.validation is None:
            return
        self.network.eval()
        rows = self.lesson.feed.once(self.lesson.validation, self.accelerator.device)
        verdict = judge(rows, self.forward, self.lesson.objective, self.lesson.judged_by)
        if update:
            self._require_finite(verdict.loss, "loss on the validation rows", update - 1)
        self.curves.verdict(update, verdict)
        if not self._is_settled(update):
            return
        if self._improves(verdict):
            self.best = {name: values.clone() for name, values in self.network.state().items()}
            found = {"best_update": update, "best": verdict, "without_gain": 0}
            self.standing = self.standing.model_copy(update=found)
        else:
            self.standing = self.standing.model_copy(update={"without_gain": self.standing.without_gain + 1})

    def _is_settled(self, update: int) -> bool:
        """Whether the weights after so many updates have the structure that they end with."""
        masking = self.lesson.masking
        return masking is None or update > masking.settled(self.plan)

    def _improves(self, verdict: Verdict) -> bool:
        if not verdict.loss < _INFINITE:
            return False
        best = self.standing.best
        return best is None or verdict.rank > best.rank

    def _is_stalled(self) -> bool:
        return self.spec.patience is not None and self.standing.without_gain >= self.spec.patience

    def _warn_of_no_gain(self) -> None:
        if self.lesson.validation is not None and self.standing.best_update == 0 and self.standing.update:
            self.context.warn("No update did better on the validation rows than the weights it began with: those stay.")

    def _checkpoint_when_due(self) -> None:
        if time.monotonic() - self._checkpointed >= self.context.checkpoint_seconds:
            self._checkpoint(finished=False)

    def _checkpoint(self, *, finished: bool) -> None:
        self._checkpointed = time.monotonic()
        self.standing = self.standing.model_copy(update={"finished": finished, "curves": self.curves.made()})
        if finished:
            # Nothing but the weights to take is of use any more.
            checkpoints.write(Saved(self.standing, best=self.best or self.network.state()), self.context)
            return
        state = optimizers.state_of(cast("torch.optim.Optimizer", self.optimizer), self.order)
        checkpoints.write(Saved(self.standing, self.network.state(), self.best, state), self.context)

    def _take_over(self, saved: Saved) -> None:
        self.best = dict(saved.best)
        if saved.standing.finished:
            return
        self.network.restore(saved.weights)
        optimizers.restore(cast("torch.optim.Optimizer", self.optimizer), self.order, saved.optimizer)


def _previous(network: Network, spec: TrainingStep, context: Context) -> Saved | None:
    """The checkpoint of an attempt that was cut off, if it fits."""
    known = context.checkpoints.get(context.step)
    if known is None:
        return None
    try:
        saved = checkpoints.read(Path(known.path))
    except EngineError as error:
        context.warn(f"{error.detail} The training starts over.")
        return None
    if not _fits(saved, network):
        context.warn("The checkpoint is of another network. The training starts over.")
        return None
    if not saved.standing.finished and not optimizers.fits(spec, network.learning(), saved.optimizer):
        context.warn("The checkpoint is of another optimizer. The training starts over.")
        return None
    context.log(f"going on after update {saved.standing.update}")
    return saved


def _fits(saved: Saved, network: Network) -> bool:
    shapes = {name: values.shape for name, values in network.state().items()}
    needed = (saved.best,) if saved.standing.finished else (saved.weights, *filter(None, (saved.best,)))
    return all({name: values.shape for name, values in part.items()} == shapes for part in needed)


@contextmanager
def _surroundings(spec: TrainingStep, threads: int) -> Iterator[None]:
    """Determinism and threads as the step asks for; as they were afterwards, random numbers included."""
    strict, before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(spec.deterministic)
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.set_num_threads(before)
        # accelerate keeps precision and device in a singleton, which the next step may want otherwise.
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - it has no public name


def _precision(spec: TrainingStep) -> PrecisionType:
    if spec.precision == "auto":
        wide = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return PrecisionType.BF16 if wide else PrecisionType.NO
    names = {"float32": PrecisionType.NO, "bfloat16": PrecisionType.BF16, "float16": PrecisionType.FP16}
    return names[spec.precision]


def _groups(batches: Iterator[Rows], size: int) -> Iterator[list[Rows]]:
    while group := list(islice(batches, size)):
        yield group
