import math

import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from tests.compression.training.attempts import digits, rows
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.training.features import HiddenStates, hidden_pairs
from workers.compression.training.lessons import balanced_weights
from workers.compression.training.objectives import (
    Classes,
    Made,
    Rows,
    Similarities,
    TeacherOutputs,
    Values,
    class_scores,
)

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.1, 0.2, -3.0]])
LABELS = torch.tensor([0, 1])
ENDINGS = {
    "none": LOGITS,
    "softmax": LOGITS.softmax(1),
    "log_softmax": LOGITS.log_softmax(1),
    "sigmoid": LOGITS.sigmoid(),
}


def of(targets: torch.Tensor | None = None, **fields: object) -> Rows:
    return Rows((), 2, targets, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ENDINGS)
def test_cross_entropy_is_that_of_the_logits_whatever_the_network_ends_with(ending: str) -> None:
    loss = Classes(ending).loss(Made((ENDINGS[ending],)), of(LABELS))

    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, LABELS))


def test_one_score_per_row_is_a_binary_classifier() -> None:
    margin = torch.tensor([[2.0], [-1.0]])
    expected = functional.binary_cross_entropy_with_logits(margin[:, 0], LABELS.float())

    torch.testing.assert_close(Classes().loss(Made((margin,)), of(LABELS)), expected)
    torch.testing.assert_close(Classes("sigmoid").loss(Made((margin.sigmoid(),)), of(LABELS)), expected)


def test_labels_beyond_the_models_classes_are_refused_by_name() -> None:
    with pytest.raises(DatasetMismatch, match="at least 8 classes, the model scores 3") as refusal:
        Classes().loss(Made((LOGITS,)), of(torch.tensor([0, 7])))
    assert refusal.value.hint


def test_outputs_that_are_no_scores_are_refused_with_a_hint() -> None:
    with pytest.raises(DatasetMismatch, match=r"\[2, 4, 8\]") as refusal:
        class_scores((torch.zeros(2, 4, 8),), "none")
    assert refusal.value.hint


def test_balanced_weights_are_those_of_scikit_learn(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    few = rows(digits("mlp", path, lambda labels: (labels > 3) | (labels.cumsum() % 3 == 0)))
    assert few.targets is not None
    classes = list(range(len(few.classes)))

    expected = compute_class_weight("balanced", classes=torch.tensor(classes).numpy(), y=few.targets)

    torch.testing.assert_close(balanced_weights(few).double(), torch.from_numpy(expected), rtol=1e-6, atol=0)


def test_divergence_at_a_temperature_is_the_textbooks() -> None:
    teacher, temperature = LOGITS.flip(1), 3.0
    soft, softer = (LOGITS / temperature).softmax(1), (teacher / temperature).softmax(1)
    expected = temperature**2 * (softer * (softer / soft).log()).sum(dim=1).mean()

    loss = TeacherOutputs(classes=True, temperature=temperature).loss(Made((LOGITS,)), of(teacher=(teacher,)))

    torch.testing.assert_close(loss, expected)


def test_a_student_in_probabilities_follows_a_teacher_in_logits_to_nothing() -> None:
    objective = TeacherOutputs(classes=True, temperature=2.0, activation="softmax")
    loss = objective.loss(Made((LOGITS.softmax(1),)), of(teacher=(LOGITS,)))

    assert float(loss) == pytest.approx(0.0, abs=1e-6)


def test_distances_ignore_padding() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    teacher = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    student = torch.where(mask[:, :, None].bool(), teacher, 1e6)
    batch = of(mask=mask, teacher=(teacher,), teacher_features={"hidden.0": teacher})

    assert float(TeacherOutputs(classes=False, temperature=1.0).loss(Made((student,)), batch)) == 0.0
    made = Made((student,), {"hidden.0": student})
    assert float(HiddenStates((("hidden.0", "hidden.0"),)).loss(made, batch)) == 0.0


def test_pairs_are_ordered_not_fitted() -> None:
    first = torch.eye(2)
    near, far = torch.tensor([[1.0, 0.1], [0.0, -1.0]]), torch.tensor([[-1.0, 0.1], [0.0, 1.0]])
    right, wrong = (Made((torch.cat((first, second)),)) for second in (near, far))
    batch = of(torch.tensor([[0.9], [0.1]]), pairs=True)

    objective = Similarities("none")

    assert float(objective.loss(right, batch)) < 1e-6
    assert float(objective.loss(wrong, batch)) > 1.0
    scaled = of(torch.tensor([[900.0], [-5.0]]), pairs=True)
    assert float(objective.loss(wrong, scaled)) == float(objective.loss(wrong, batch))


def test_squared_error_does_not_depend_on_the_targets_scale() -> None:
    values, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [4.0]])
    small = Values(float(targets.var(correction=0))).loss(Made((values,)), of(targets))
    large = Values(float((targets * 1e4).var(correction=0))).loss(Made((values * 1e4,)), of(targets * 1e4))

    assert math.isclose(float(small), float(large), rel_tol=1e-5)


def test_hidden_states_pair_only_where_whole_shapes_agree() -> None:
    narrow, wide = {"0": (32, 8, 8), "3": (16,)}, {"0": (64, 8, 8), "3": (16,)}

    assert hidden_pairs(["0", "3"], ["0", "3"], (narrow, wide)) == [("3", "3")]
