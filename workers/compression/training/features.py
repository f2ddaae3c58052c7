"""Following a teacher inside: hidden states, and how tokens attend to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from workers.compression.specs.errors import DatasetMismatch
from workers.compression.training.objectives import Made, Rows

RELATION_HEADS = 12
"""Queries, keys and values are cut into as many pieces on both sides, whatever their own number of heads."""
KINDS = ("query", "key", "value")
_TINY = 1e-12


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states follow those of the teacher (arXiv:1909.10351).

    Args:
        pairs: Names of the student's and the teacher's tap, of one width each.
    """

    pairs: Sequence[tuple[str, str]]

    def loss(self, made: Made, rows: Rows) -> torch.Tensor:
        """Mean over the pairs of the squared error in units of the teacher's variance; padding does not count."""
        distances = []
        for mine, theirs in self.pairs:
            student, teacher = made.features[mine], rows.teacher_features[theirs]
            if student.shape != teacher.shape:
                raise DatasetMismatch(
                    f"The student's hidden state {mine} has the shape {list(student.shape)}, the original's {theirs} "
                    f"{list(teacher.shape)}.",
                    reason="student_features",
                    hint="Use distill.logits, which compares outputs only.",
                )
            if rows.mask is not None and student.shape[:2] == rows.mask.shape:
                student, teacher = student[rows.mask.bool()], teacher[rows.mask.bool()]
            variance = teacher.var(correction=0).clamp_min(_TINY)
            distances.append(torch.nn.functional.mse_loss(student, teacher) / variance)
        return torch.stack(distances).mean()


@dataclass(frozen=True)
class AttentionRelations:
    """Relations among queries, among keys and among values follow the teacher's (arXiv:2012.15828).

    Widths and numbers of heads may differ, the tokens may not.

    Args:
        student: Number of its attention layer that follows.
        teacher: Number of the teacher's layer that is followed.
        heads: Pieces on both sides; divides all widths.
    """

    student: int
    teacher: int
    heads: int

    def loss(self, made: Made, rows: Rows) -> torch.Tensor:
        """Mean divergence over the three kinds, the heads and the tokens that are no padding."""
        found = []
        for kind in KINDS:
            mine = self._relations(made.features[f"{kind}.{self.student}"], rows.mask)
            theirs = self._relations(rows.teacher_features[f"{kind}.{self.teacher}"], rows.mask)
            divergence = (theirs.exp() * (theirs - mine)).sum(dim=-1)
            found.append(_mean_over_tokens(divergence, rows.mask))
        return torch.stack(found).mean()

    def _relations(self, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Logarithms of what each token [n, heads, tokens, tokens] gives to each other one."""
        count, tokens, width = values.shape
        pieces = values.reshape(count, tokens, self.heads, width // self.heads).transpose(1, 2)
        scores = pieces @ pieces.transpose(-1, -2) / (width // self.heads) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask.bool()[:, None, None, :], torch.finfo(scores.dtype).min)
        return torch.log_softmax(scores, dim=-1)


def hidden_pairs(
    student: Sequence[str],
    teacher: Sequence[str],
    shapes: tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]],
) -> list[tuple[str, str]]:
    """Taps to pair: of the same name and shape where names agree, else spread evenly over the teacher's depth.

    Args:
        student: Names of its taps from input to output.
        teacher: Those of the teacher.
        shapes: Without the axis of rows, by name, of both.
    """
    mine, theirs = shapes
    shared = [name for name in student if name in theirs]
    if len(student) == len(teacher) == len(shared):
        pairs = [(name, name) for name in student]
    else:
        step = (len(teacher) - 1) / max(len(student) - 1, 1)
        pairs = [(name, teacher[round(index * step)]) for index, name in enumerate(student)]
    return [(left, right) for left, right in pairs if mine[left] == theirs[right]]


def relation_heads(widths: Sequence[int]) -> int:
    """The most pieces, up to twelve, that all widths can be cut into; keys may be narrower than queries."""
    return next(heads for heads in range(RELATION_HEADS, 0, -1) if all(width % heads == 0 for width in widths))


def _mean_over_tokens(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return values.mean()
    weights = mask.to(values.dtype)[:, None, :].expand_as(values)
    return (values * weights).sum() / weights.sum().clamp_min(1.0)
