"""What can only go together."""

from itertools import pairwise

import numpy as np

from workers.compression.structure.relations import FIXED, Relations, fixed


def test_terms_of_a_sum_go_together_and_broadcast_axes_bind_nothing() -> None:
    relations = Relations()
    one, two, other = relations.fresh(3), relations.fresh(3), relations.fresh(5)

    result = relations.broadcast([(one, other), (two, *fixed((1,)))])
    units = relations.units()

    assert (units[one] == units[two]).all()
    assert len(set(units[one])) == 3
    assert result[1] is other


def test_of_a_flattened_image_a_channel_goes_with_all_its_pixels() -> None:
    relations = Relations()
    channels, flat = relations.fresh(4), relations.fresh(24)

    (merged,) = relations.reshaped((channels, *fixed((2, 3))), (24,))
    relations.link(merged, flat)
    units = relations.units()

    np.testing.assert_array_equal(units[flat], np.repeat(units[channels], 6))
    assert FIXED not in units[flat]


def test_of_an_axis_cut_into_heads_a_head_goes_as_a_whole() -> None:
    relations = Relations()
    hidden = relations.fresh(12)

    rows, heads, inside = relations.reshaped((*fixed((5,)), hidden), (5, 3, 4))
    units = relations.units()

    np.testing.assert_array_equal(units[hidden], np.repeat(units[heads], 4))
    assert not units[inside].any()
    assert not units[rows].any()


def test_axes_that_mix_stay() -> None:
    relations = Relations()
    one, two = relations.fresh(4), relations.fresh(6)

    relations.reshaped((one, two), (6, 4))

    assert not relations.units()[np.concatenate([one, two])].any()


def test_what_is_linked_with_something_locked_by_any_chain_stays() -> None:
    relations = Relations()
    axes = [relations.fresh(3) for _ in range(4)]
    for first, second in pairwise(axes):
        relations.link(first, second)
    relations.lock(axes[-1][1:2])

    units = relations.units()

    assert units[axes[0][1]] == FIXED
    assert FIXED not in units[axes[0][[0, 2]]]
    assert units[axes[0][0]] != units[axes[0][2]]


def test_numbers_of_units_do_not_depend_on_the_order_of_statements() -> None:
    first, second = Relations(), Relations()
    for relations, pairs in ((first, [(0, 1), (2, 3)]), (second, [(3, 2), (1, 0)])):
        axes = [relations.fresh(3) for _ in range(4)]
        for one, two in pairs:
            relations.link(axes[one], axes[two])

    np.testing.assert_array_equal(first.units(), second.units())


def test_of_queries_keys_and_values_made_together_a_head_goes_from_all_three() -> None:
    relations = Relations()
    made = relations.fresh(24)

    kinds, heads, inside = relations.reshaped((made,), (3, 4, 2))
    relations.lock(kinds)
    units = relations.units()

    np.testing.assert_array_equal(units[made], np.tile(np.repeat(units[heads], 2), 3))
    assert FIXED not in units[heads]
    assert not units[np.concatenate([kinds, inside])].any()
