"""The search for the smallest set of layers to spare, on made-up networks."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.quantization.spare import Candidate, Layers, Spared, spare

NAMES = tuple("abcdef")
ENDLESS = 1e9


def searched(
    loss_of: Callable[[Layers], float],
    costs: dict[str, float],
    *,
    groups: tuple[str, ...] = (),
    budget_pt: float = 0.0,
    most_cost: float = ENDLESS,
) -> Spared:
    """Search where the divergence and the drop are one and the same loss."""
    every = [*(frozenset(name) for name in costs), *(frozenset(group) for group in groups)]
    start = loss_of(frozenset())
    candidates = [
        Candidate(layers, start - loss_of(layers), sum(costs[name] for name in layers)) for layers in every
    ]
    return spare(candidates, divergence=loss_of, drop_pt=loss_of, budget_pt=budget_pt, most_cost=most_cost)


def additive(losses: dict[str, float]) -> Callable[[Layers], float]:
    return lambda layers: sum(loss for name, loss in losses.items() if name not in layers)


def test_within_the_budget_nothing_is_spared() -> None:
    found = searched(additive({"a": 0.2, "b": 0.1}), {"a": 0.1, "b": 0.1}, budget_pt=0.5)
    assert (found.layers, found.within, len(found.steps)) == (frozenset(), True, 1)


def test_the_one_that_hurts_is_spared_alone() -> None:
    found = searched(
        additive({"a": 0.01, "b": 9.0, "c": 0.02}), {"a": 0.1, "b": 0.3, "c": 0.1}, budget_pt=0.5
    )
    assert found.layers == {"b"}
    assert found.drop_pt == additive({"a": 0.01, "c": 0.02})(frozenset())


def test_of_two_equal_gains_the_cheaper_is_taken() -> None:
    losses = {"a": 1.0, "b": 1.0}
    for costs in ({"a": 0.2, "b": 0.1}, {"a": 0.1, "b": 0.2}):
        found = searched(additive(losses), costs, budget_pt=1.0)
        assert found.layers == {min(costs, key=costs.__getitem__)}


def test_a_gain_is_weighed_by_its_cost() -> None:
    """Three small cheap gains, or one large that costs more than all of them."""
    losses = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 3.0}
    found = searched(additive(losses), {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.9}, budget_pt=3.0)
    assert found.layers == {"a", "b", "c"}
    found = searched(additive(losses), {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.2}, budget_pt=3.0)
    assert found.layers == {"d"}


def test_costs_too_small_to_be_measured_do_not_decide() -> None:
    """A layer that seemed to cost less than nothing is not taken for that alone."""
    losses = {"a": 0.1, "b": 5.0}
    found = searched(additive(losses), {"a": -0.02, "b": 0.001}, budget_pt=0.5)
    assert found.layers == {"b"}


def pair(layers: Layers) -> float:
    """A loss that only both neighbors together take away."""
    return 0.1 if {"b", "c"} <= layers else 5.0


def test_neighbors_are_spared_together_where_one_alone_gains_nothing() -> None:
    costs = dict.fromkeys("abc", 0.1)
    assert searched(pair, costs, groups=("bc",), budget_pt=1.0).layers == {"b", "c"}
    alone = searched(pair, costs, budget_pt=1.0)
    assert (alone.layers, alone.within) == (frozenset(), False)


def test_what_a_later_choice_made_needless_is_dropped_again() -> None:
    """`a` seems best for its cost, but only `b` and `c` together are within the budget, and then suffice."""

    def loss(layers: Layers) -> float:
        if {"b", "c"} <= layers:
            return 0.0
        return 10 - 4 * ("a" in layers) - ("b" in layers) - ("c" in layers)

    found = searched(loss, {"a": 0.1, "b": 0.1, "c": 0.1}, budget_pt=1.0)
    assert found.layers == {"b", "c"}
    assert frozenset("abc") in dict(found.steps)


def test_where_nothing_is_within_the_budget_the_best_is_given() -> None:
    losses = {"a": 1.0, "b": 2.0}
    stubborn = searched(lambda layers: additive(losses)(layers) + 1, {"a": 0.1, "b": 0.1})
    assert (stubborn.layers, stubborn.within, stubborn.drop_pt) == ({"a", "b"}, False, 1.0)


def test_sparing_ends_where_it_no_longer_pays() -> None:
    losses = {"a": 1.0, "b": 2.0, "c": 4.0}
    costs = {"a": 0.3, "b": 0.3, "c": 0.3}
    assert searched(additive(losses), costs, most_cost=0.7).layers == {"b", "c"}
    assert searched(additive(losses), {**costs, "c": 0.8}, most_cost=0.7).layers == {"a", "b"}
    assert not searched(additive(losses), costs, most_cost=0.7).within
    assert searched(additive(losses), costs, most_cost=1.0).within


def test_gains_are_counted_beside_what_was_taken() -> None:
    """`b` gains as `a` does, by the same means: after one of them the other is worth nothing."""

    def loss(layers: Layers) -> float:
        return 4.0 * (not {"a", "b"} & layers) + 1.0 * ("c" not in layers)

    found = searched(loss, {"a": 0.1, "b": 0.11, "c": 0.2}, budget_pt=0.5)
    assert found.layers == {"a", "c"}
    assert frozenset("ab") not in dict(found.steps)


def test_a_gain_that_shrank_yields_to_one_that_did_not() -> None:
    """Beside `a` most of what `b` gains is gained already: `c`, which seemed worse, is better now."""

    def loss(layers: Layers) -> float:
        shared = {0: 10.0, 1: 1.0, 2: 0.0}[len({"a", "b"} & layers)]
        return shared + 2.0 * ("a" not in layers) + 5.0 * ("c" not in layers)

    found = searched(loss, dict.fromkeys("abc", 0.1), budget_pt=1.5)
    assert found.layers == {"a", "c"}
    assert [layers for layers, _ in found.steps][:3] == [set(), {"a"}, {"a", "c"}]


def test_dropping_goes_on_as_long_as_anything_can_be_dropped() -> None:
    """`x` is tried before `y`, but can be dropped only after it."""
    losses = {"xyz": 0.0, "xz": 0.0, "z": 0.0}

    def loss(layers: Layers) -> float:
        return losses.get("".join(sorted(layers)), 9.0)

    together = Candidate(frozenset("xyz"), 9.0, 0.6)
    found = spare([together], divergence=loss, drop_pt=loss, budget_pt=1.0, most_cost=ENDLESS)
    assert found.layers == {"z"}


WHOLE = st.integers(0, 5).map(float)  # sums of which are exact
LOSSES = st.fixed_dictionaries(dict.fromkeys(NAMES, WHOLE))
COSTS = st.fixed_dictionaries({name: st.floats(-0.05, 0.5) for name in NAMES})
PAIRS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), WHOLE), max_size=4)


@settings(max_examples=100, deadline=None)
@given(losses=LOSSES, costs=COSTS, pairs=PAIRS, budget_pt=st.floats(0, 8))
def test_no_member_can_be_dropped_and_the_drop_is_as_told(
    losses: dict[str, float], costs: dict[str, float], pairs: list[tuple[str, str, float]], budget_pt: float
) -> None:
    """Whatever the losses: of single layers, and of tensors that two layers have to leave alone."""

    def loss(layers: Layers) -> float:
        return additive(losses)(layers) + sum(extra for a, b, extra in pairs if not {a, b} <= layers)

    groups = tuple(a + b for a, b, _ in pairs if a != b)
    found = searched(loss, costs, groups=groups, budget_pt=budget_pt)
    assert found.within == (found.drop_pt <= budget_pt)
    assert found.within  # with every layer spared, nothing is lost
    assert found.drop_pt == loss(found.layers)
    for layer in found.layers:
        assert loss(found.layers - {layer}) > budget_pt
    again = searched(loss, costs, groups=groups, budget_pt=budget_pt)
    assert again == found


@settings(max_examples=50, deadline=None)
@given(losses=LOSSES, costs=COSTS, most_cost=st.floats(0, 1))
def test_the_best_that_pays_has_no_needless_member_either(
    losses: dict[str, float], costs: dict[str, float], most_cost: float
) -> None:
    def loss(layers: Layers) -> float:
        return additive(losses)(layers) + 1

    found = searched(loss, costs, most_cost=most_cost)
    assert not found.within
    assert found.drop_pt <= loss(frozenset())
    assert all(loss(found.layers - {layer}) > found.drop_pt for layer in found.layers)
    assert sum(max(costs[layer], 0.005) for layer in found.layers) < max(most_cost, 1e-9)
