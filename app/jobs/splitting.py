"""Which rows of which dataset play which role, so that no row is both calibrated on and measured on."""

from collections.abc import Sequence

from app.jobs.schemas import JobCreate, Role, RolePart, Split
from workers.compression.specs.step import Step

_WEIGHTS: dict[Role, float] = {
    "train": 6.0,
    "calibration": 2.0,
    "selection": 3.0,
    "confirmation": 3.0,
    "evaluation": 2.0,
}
_EVALUATION_WITHOUT_TRAINING = 8.0


def needs_calibration(recipe: Sequence[Step]) -> bool:
    """Whether any step looks at data."""
    return any("calibration" in step.required() for step in recipe)


def needs_selection(recipe: Sequence[Step]) -> bool:
    """Whether any step chooses by data, so that the choice has to be confirmed on other rows."""
    return any("selection" in step.required() for step in recipe)


def needs_training(recipe: Sequence[Step]) -> bool:
    """Whether any step learns from data."""
    return any("train" in step.required() for step in recipe)


def split_roles(request: JobCreate) -> Split:
    """Gives every role its rows.

    A dataset that plays several roles is divided. Missing roles are filled in from what is there: rows to train on
    are taken from the calibration or evaluation data if a step needs them, rows to measure on are set aside from the
    training or calibration data, rows to calibrate on from the evaluation data if a step needs them. Rows to choose
    by and to confirm the choice on come from the evaluation data, for on rows that it was trained on a model does
    better than on others.
    """
    roles = request.data.by_role()
    if roles and needs_training(request.recipe) and "train" not in roles:
        roles["train"] = roles["calibration"] if "calibration" in roles else roles["evaluation"]
    if roles and "evaluation" not in roles:
        roles["evaluation"] = roles["train"] if "train" in roles else roles["calibration"]
    if roles and needs_calibration(request.recipe) and not {"train", "calibration"} & set(roles):
        roles["calibration"] = roles["evaluation"]
    if roles and needs_selection(request.recipe):
        roles["selection"] = roles["confirmation"] = roles["evaluation"]
    parts: dict[Role, RolePart] = {}
    for dataset in dict.fromkeys(roles.values()):
        sharing = [role for role in _WEIGHTS if roles.get(role) == dataset]
        parts |= _divide(dataset, sharing)
    in_order: dict[Role, RolePart] = {role: parts[role] for role in _WEIGHTS if role in parts}
    return Split(seed=request.seed, roles=in_order, summary=_summary(in_order))


def _divide(dataset: str, sharing: Sequence[Role]) -> dict[Role, RolePart]:
    weights = [
        _EVALUATION_WITHOUT_TRAINING if role == "evaluation" and "train" not in sharing else _WEIGHTS[role]
        for role in sharing
    ]
    bounds = [round(sum(weights[:count]) / sum(weights), 6) for count in range(len(weights) + 1)]
    return {
        role: RolePart(dataset=dataset, part=(low, high))
        for role, low, high in zip(sharing, bounds, bounds[1:], strict=False)
    }


def _summary(parts: dict[Role, RolePart]) -> str:
    if not parts:
        return "No data was given: fidelity is measured on seeded synthetic inputs."
    datasets = [part.dataset for part in parts.values()]
    sentences = []
    for dataset in dict.fromkeys(datasets):
        sharing = {role: part for role, part in parts.items() if part.dataset == dataset}
        if len(sharing) == 1:
            sentences.append(f"{dataset} is used whole for {next(iter(sharing))}.")
            continue
        shares = ", ".join(f"{100 * (part.part[1] - part.part[0]):.0f} % {role}" for role, part in sharing.items())
        sentences.append(f"{dataset} was split into disjoint, seeded, stratified parts: {shares}.")
    return " ".join(sentences)
