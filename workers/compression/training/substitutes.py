"""What a weight can be computed from while it learns, so that its structure outlives the training exactly."""

import torch
from torch import nn

MAX_SHARED_VALUES = 256
"""More distinct values than an 8-bit code can tell apart are no codebook."""
_SMALLEST_CODEBOOK_WEIGHT = 512
"""Elements; few values in a smaller weight may be chance."""
_FEWEST_USES = 16
_SAMPLE = 4096


class Masked(nn.Module):
    """A weight whose zeros stay zero."""

    mask: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(weight.detach().clone())
        self.register_buffer("mask", weight != 0, persistent=False)

    def forward(self) -> torch.Tensor:
        """The weight."""
        return torch.where(self.mask, self.values, 0.0)


class Shared(nn.Module):
    """A weight of few distinct values, of which the values learn and not which element has which.

    The gradient of a value is the sum over its elements (Han et al., arXiv:1510.00149, section 3). Zero stays zero.
    """

    codes: torch.Tensor
    mask: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        values, codes = torch.unique(weight.detach(), return_inverse=True)
        self.values = nn.Parameter(values)
        self.register_buffer("codes", codes.to(torch.int32), persistent=False)
        self.register_buffer("mask", values != 0, persistent=False)

    def forward(self) -> torch.Tensor:
        """The weight."""
        return torch.where(self.mask, self.values, 0.0)[self.codes]


class Codebook(nn.Module):
    """A few values that learn; zero stays zero."""

    mask: torch.Tensor

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values.detach().clone())
        self.register_buffer("mask", values != 0, persistent=False)

    def forward(self) -> torch.Tensor:
        """The values."""
        return torch.where(self.mask, self.values, 0.0)


class Coded(nn.Module):
    """A weight whose elements are values of a codebook times scales; both learn, which element has which does not.

    Args:
        book: May be that of other weights too: its gradient is then the sum over all of them.
        codes: Places in it, in the weight's shape.
        scales: The weight's own.
        scale_codes: Places in these, in the weight's shape.
    """

    codes: torch.Tensor
    scale_codes: torch.Tensor

    def __init__(self, book: Codebook, codes: torch.Tensor, scales: Codebook, scale_codes: torch.Tensor) -> None:
        super().__init__()
        self.book, self.scales = book, scales
        self.register_buffer("codes", codes.to(torch.int32), persistent=False)
        self.register_buffer("scale_codes", scale_codes.to(torch.int32), persistent=False)

    def forward(self) -> torch.Tensor:
        """The weight."""
        values: torch.Tensor = self.book()[self.codes] * self.scales()[self.scale_codes]
        return values


class Prunable(nn.Module):
    """A weight of which a mask lets through what stays; which elements those are may change between updates.

    Args:
        weight: At the start.
        keeps_zeros: Whether elements that are zero never come back.
    """

    mask: torch.Tensor
    open: torch.Tensor

    def __init__(self, weight: torch.Tensor, *, keeps_zeros: bool) -> None:
        super().__init__()
        self.values = nn.Parameter(weight.detach().clone())
        closed = (weight == 0) if keeps_zeros else torch.zeros_like(weight, dtype=torch.bool)
        self.register_buffer("open", ~closed, persistent=False)
        # Part of the state: between two choices it does not follow from the values any more.
        self.register_buffer("mask", ~closed)

    def forward(self) -> torch.Tensor:
        """The weight."""
        return torch.where(self.mask, self.values, 0.0)

    @torch.no_grad()
    def candidates(self) -> torch.Tensor:
        """Each element's value, that of masked ones as if they came back; 0 where they may not."""
        return torch.where(self.open, self.values, 0.0)

    @torch.no_grad()
    def keep(self, mask: torch.Tensor) -> None:
        """Lets through these elements from now on."""
        self.mask.copy_(mask.to(self.mask.device) & self.open)

    @torch.no_grad()
    def forget(self) -> None:
        """Sets what is masked to zero."""
        self.values.mul_(self.mask)


class LowRank(nn.Module):
    """A frozen weight plus a learnt update of low rank (LoRA, arXiv:2106.09685), zero at first.

    Args:
        weight: Outputs on axis 0; all other axes together are the inputs.
        rank: Rank of the update.
        scale: What the update is multiplied by.
        generator: Fills the first factor.
    """

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        self.register_buffer("weight", weight.detach().clone(), persistent=False)
        bound = inputs**-0.5
        self.down = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = scale

    def forward(self) -> torch.Tensor:
        """The weight."""
        return self.weight + self.scale * (self.up @ self.down).reshape(self.weight.shape)


def keeping_structure(weight: torch.Tensor) -> nn.Module | None:
    """What keeps a weight's zeros and shared values; None for a dense weight.

    A weight counts as shared if it is large and each of at most 256 values stands in it many times on average: that
    does not come about by training in floats.
    """
    if weight.numel() >= _SMALLEST_CODEBOOK_WEIGHT and _shares_values(weight):
        return Shared(weight)
    return Masked(weight) if bool((weight == 0).any()) else None


def smallest_codebook_weight(values: int) -> int:
    """Elements from which on a weight of so many distinct values is known to share them."""
    return max(_SMALLEST_CODEBOOK_WEIGHT, values * _FEWEST_USES)


def _shares_values(weight: torch.Tensor) -> bool:
    sample = weight.detach().reshape(-1)[:_SAMPLE]
    if len(torch.unique(sample)) > MAX_SHARED_VALUES:
        return False
    distinct = len(torch.unique(weight))
    return distinct <= MAX_SHARED_VALUES and distinct * _FEWEST_USES <= weight.numel()
