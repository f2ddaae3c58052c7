from hypothesis import given
from hypothesis import strategies as st

from workers.compression.specs.steps.finetune import FullFinetune
from workers.compression.training.schedule import Plan

plans = st.builds(
    lambda batches, **fields: Plan.of(FullFinetune(**fields), batches),
    st.integers(1, 40),
    epochs=st.floats(0.05, 6.0),
    accumulation=st.integers(1, 9),
    warmup=st.floats(0.0, 0.99),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    max_steps=st.none() | st.integers(1, 100),
)


@given(plans)
def test_updates_take_every_batch_of_every_epoch_once_in_order(plan: Plan) -> None:
    taken: list[tuple[int, int]] = []
    for update in range(plan.updates):
        epoch, first = plan.place(update)
        taken += [(epoch, batch) for batch in range(first, min(first + plan.accumulation, plan.batches))]

    expected = [(epoch, batch) for epoch in range(taken[-1][0] + 1) for batch in range(plan.batches)]
    assert taken == expected[: len(taken)]


@given(plans)
def test_rates_rise_to_the_peak_and_then_never_rise_again(plan: Plan) -> None:
    rates = [plan.rate(update) for update in range(plan.updates)]

    assert all(0.0 < rate <= 1.0 for rate in rates)
    assert rates[: plan.warmup] == sorted(rates[: plan.warmup])
    assert rates[plan.warmup :] == sorted(rates[plan.warmup :], reverse=True)


@given(plans)
def test_the_end_is_validated(plan: Plan) -> None:
    assert plan.is_validated(plan.updates)
