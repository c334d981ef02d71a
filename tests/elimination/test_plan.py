"""Plans from names and sizes: order, cost, plates, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from marginax.elimination.axes import Axis
from marginax.elimination.plan import Advance, Chain, Eliminate, Multiply, Plan, Term
from marginax.elimination.planner import IntractableError, make_plan

NOWHERE = frozenset[str]()


def plan_of(
    factors: Iterable[str],
    sizes: Mapping[Any, int] | int = 2,
    plate_sizes: Mapping[Any, int] | None = None,
    keep: Iterable[str] = (),
) -> Plan:
    """A plan for factors written like ``xy@AB``: of x and y, in the plates A and B.

    A variable's plates are those of its own factor, the first that names it first; a variable
    without one lives outside of plates.
    """
    terms, home = [], dict[str, frozenset[str]]()
    for text in factors:
        variables, _, plates = text.partition("@")
        terms.append(Term(text, tuple(variables), frozenset(plates)))
        if variables:
            home.setdefault(variables[0], frozenset(plates))
    names = sorted({v for term in terms for v in term.variables})
    home = {name: home.get(name, NOWHERE) for name in names}
    return make_plan(
        terms,
        dict.fromkeys(names, sizes) if isinstance(sizes, int) else sizes,
        plate_sizes or {p: 10 for term in terms for p in term.plates},
        home,
        keep,
    )


def eliminations(plan: Plan) -> dict[Axis, Eliminate]:
    return {step.variable: step for step in plan.steps if isinstance(step, Eliminate)}


def products(plan: Plan) -> list[tuple[Axis, ...]]:
    return [step.over for step in plan.steps if isinstance(step, Multiply)]


def slots_are_used_once(plan: Plan) -> bool:
    used, made = [], []
    for step in plan.steps:
        if isinstance(step, Advance):
            used += [*(i for group in step.incoming for i in group), *step.potentials]
            made += step.outputs
        else:
            used += step.inputs if isinstance(step, Eliminate) else (step.input,)
            made.append(step.output)
    everything = [*range(len(plan.terms)), *made]
    return sorted([*used, *plan.results]) == sorted(everything)


def test_one_variable_is_one_sum() -> None:
    plan = plan_of(["x", "x"], sizes=5)
    assert plan.order == ("x",)
    assert plan.largest == 5
    assert plan.flops == 5 * 3
    assert slots_are_used_once(plan)


def test_nothing_to_eliminate_is_no_step() -> None:
    plan = plan_of(["", ""])
    assert plan.steps == ()
    assert plan.results == (0, 1)
    assert (plan.flops, plan.largest) == (0, 1)
    assert str(plan) == "nothing to eliminate"


@pytest.mark.parametrize("length", [2, 3, 10, 40])
def test_a_chain_costs_as_much_as_its_links(length: int) -> None:
    names = [chr(0x4E00 + i) for i in range(length)]
    links = [names[i] + names[i - 1] for i in range(1, length)]
    plan = plan_of([names[0], *links], sizes=7)
    assert sorted(map(str, plan.order)) == sorted(names)
    assert plan.largest == 7**2
    assert plan.flops <= length * 7**2 * 4


def test_a_star_never_joins_its_leaves() -> None:
    plan = plan_of(["c", *(leaf + "c" for leaf in "abdefgh")], sizes=6)
    assert plan.largest == 6**2
    assert plan.order[-1] == "c"


def test_a_loop_needs_three_at_a_time() -> None:
    names = "abcdefgh"
    edges = [b + a for a, b in itertools.pairwise(names)]
    plan = plan_of(["a", *edges, "ah"], sizes=4)
    assert plan.largest == 4**3


def test_a_tree_of_two_children_each_costs_as_much_as_its_edges() -> None:
    names = [chr(0x4E00 + i) for i in range(15)]
    edges = [names[i] + names[(i - 1) // 2] for i in range(1, 15)]
    assert plan_of([names[0], *edges], sizes=5).largest == 5**2


def test_a_grid_is_swept_across_its_shorter_side() -> None:
    name = {(i, j): chr(0x4E00 + 10 * i + j) for i in range(3) for j in range(6)}
    right = [name[i, j + 1] + name[i, j] for i in range(3) for j in range(5)]
    down = [name[i + 1, j] + name[i, j] for i in range(2) for j in range(6)]
    plan = plan_of([name[0, 0], *right, *down], sizes=2)
    assert plan.largest <= 2**4


def test_what_one_factor_alone_depends_on_leaves_it_first() -> None:
    """Two large factors that share one variable are not joined before they are small."""
    plan = plan_of(["cab", "cde"], sizes=10)
    assert plan.largest == 10**3
    assert plan.order[-1] == "c"


def test_a_private_variable_does_not_count_against_the_others() -> None:
    plan = plan_of(["abz", "bc", "ca"], sizes={"a": 3, "b": 3, "c": 3, "z": 100})
    assert plan.order[0] == "z"
    assert plan.largest == 3 * 3 * 100
    assert eliminations(plan)["z"].inputs == (0,)


def test_the_same_model_has_the_same_plan() -> None:
    factors = ["a@A", "b@B", "ca@A", "db@B", "e", "ae@A", "be@B"]
    first = plan_of(factors)
    assert first == plan_of(factors)
    assert isinstance(first.steps[0], Eliminate)
    assert first.steps[0].output == len(factors)


# --- plates ------------------------------------------------------------------------------------


def test_a_mixture_sums_in_its_plate_and_then_multiplies() -> None:
    plan = plan_of(["z@A", "z@A"], sizes=4, plate_sizes={"A": 1000})
    (eliminate, multiply) = plan.steps
    assert isinstance(eliminate, Eliminate)
    assert isinstance(multiply, Multiply)
    assert eliminate.elements == 4 * 1000
    assert eliminate.plates == multiply.over == ("A",)
    assert slots_are_used_once(plan)


def test_a_global_variable_waits_for_the_product_of_its_children() -> None:
    plan = plan_of(["w", "zw@A", "z@A"], sizes=3, plate_sizes={"A": 100})
    assert plan.order == ("z", "w")
    assert products(plan) == [("A",)]
    assert plan.largest == 3 * 3 * 100
    assert eliminations(plan)["w"].elements == 3


def test_nested_plates_are_left_from_the_inside() -> None:
    plan = plan_of(["a", "ba@A", "cb@AB", "dc@ABC", "d@ABC"])
    assert plan.order == ("d", "c", "b", "a")
    assert products(plan) == [("C",), ("B",), ("A",)]
    assert plan.largest == 2 * 2 * 10 * 10 * 10


def test_a_plate_that_no_variable_lives_in_is_multiplied_out_with_the_others() -> None:
    plan = plan_of(["a", "a@ABC"])
    assert products(plan) == [("A", "B", "C")]


def test_disjoint_plates_do_not_see_each_other() -> None:
    plan = plan_of(["w", "xw@A", "yw@B"], plate_sizes={"A": 5, "B": 7})
    assert eliminations(plan)["x"].plates == ("A",)
    assert eliminations(plan)["y"].plates == ("B",)
    assert plan.largest == 2 * 2 * 7


def test_overlapping_plates_are_fine_while_only_one_of_them_holds_a_variable() -> None:
    """The rows have a variable each, the columns none: the cells know their row."""
    plan = plan_of(["x@A", "x@AB"], plate_sizes={"A": 5, "B": 7})
    assert plan.order == ("x",)
    assert products(plan) == [("B",), ("A",)]


def test_a_variable_of_both_plates_joins_one_of_each_plate_only_by_being_local() -> None:
    """The cell's variable is summed out first; what it leaves behind joins x to y in A and B."""
    with pytest.raises(IntractableError):
        plan_of(["x@A", "y@B", "zxy@AB"])
    assert plan_of(["x@A", "y", "zxy@AB"]).order == ("z", "x", "y")


INTRACTABLE = ["x@A", "y@B", "xy@AB"]


def test_crossed_plates_are_intractable_and_the_message_draws_them() -> None:
    with pytest.raises(IntractableError) as error:
        plan_of(INTRACTABLE, plate_sizes={"A": 30, "B": 20})
    message = str(error.value)
    assert "'x' lives in the plates {'A' (30)}" in message
    assert "'y' lives in the plates {'B' (20)}" in message
    assert "meet in 'xy@AB', in the plates {'A' (30), 'B' (20)}" in message
    assert "in `params`, or with handlers.condition" in message


def test_crossed_plates_that_meet_through_a_chain_name_the_last_link() -> None:
    with pytest.raises(IntractableError, match=r"they meet in 'zx@AB', 'zy@AB'"):
        plan_of(["x@A", "y@B", "zx@AB", "zy@AB"])


def test_three_crossed_plates_are_intractable_two_at_a_time() -> None:
    with pytest.raises(IntractableError):
        plan_of(["x@A", "y@B", "w@C", "xyw@ABC"])


def test_crossed_plates_inside_a_common_one_are_intractable_too() -> None:
    with pytest.raises(IntractableError) as error:
        plan_of(["x@AC", "y@BC", "xy@ABC"])
    assert "'x' lives in the plates {'A' (10), 'C' (10)}" in str(error.value)


def test_one_of_the_crossed_variables_moved_out_is_tractable() -> None:
    assert set(plan_of(["x", "y@B", "xy@AB"]).order) == {"x", "y"}
    assert set(plan_of(["x@AB", "y@B", "xy@AB"]).order) == {"x", "y"}


def test_a_factor_outside_of_its_variable_s_plate_is_refused() -> None:
    terms = [Term("own", ("x",), frozenset("A")), Term("outside", ("x",), NOWHERE)]
    with pytest.raises(ValueError, match=r"'outside' depends on 'x' but stands outside.*'A'"):
        make_plan(terms, {"x": 2}, {"A": 3}, {"x": frozenset("A")})


# --- kept variables ------------------------------------------------------------------------------


def test_kept_variables_stay_in_what_is_left() -> None:
    plan = plan_of(["a", "ba", "cb"], keep="b")
    assert set(plan.order) == {"a", "c"}
    kept = [plan.terms[slot].variables for slot in plan.results if slot < len(plan.terms)]
    made = {step.output: step for step in plan.steps if isinstance(step, Eliminate)}
    kept += [
        tuple(v for v in step.variables if v != step.variable)
        for slot in plan.results
        if (step := made.get(slot)) is not None
    ]
    assert sorted(kept) == [("b",), ("b",)]


def test_kept_variables_stay_in_their_plate() -> None:
    plan = plan_of(["z@A", "yz@A", "w@A"], keep="z")
    assert set(plan.order) == {"y", "w"}
    assert products(plan) == [("A",)]  # of what w left behind
    assert len(plan.results) == 3
    assert slots_are_used_once(plan)


def test_a_kept_global_variable_is_kept_in_each_element() -> None:
    """Factors of kept variables alone are not even multiplied over their plates."""
    plan = plan_of(["w", "zw@A"], keep="w")
    assert plan.order == ("z",)
    assert products(plan) == []


def test_a_kept_variable_may_not_couple_the_elements_of_its_plate() -> None:
    with pytest.raises(IntractableError):
        plan_of(["w", "zw@A"], keep="z")


def test_everything_kept_is_nothing_to_do() -> None:
    plan = plan_of(["a", "ba", "cb@A"], keep="abc")
    assert plan.steps == ()
    assert plan.results == (2, 0, 1)


# --- printing ------------------------------------------------------------------------------------


def test_a_plan_prints_its_steps_with_sites_sizes_and_cost() -> None:
    lines = str(plan_of(["w", "zw@A", "z@A"], sizes=3, plate_sizes={"A": 1000})).splitlines()
    assert lines[0].startswith("sum out z in A: zw@A * z@A -> f3(w)")
    assert "[9,000 elements, 27,000 FLOPs]" in lines[0]
    assert lines[1] == "multiply f3(w) over A -> f4"
    assert lines[2].startswith("sum out w: w * f4 -> f5()")


# --- chains --------------------------------------------------------------------------------------

STEPS = 100


def hidden_markov_plan(**more: Any) -> Plan:
    """Of a first step and 99 that are alike; ``y`` is a variable of each step alone."""
    terms = [
        Term("prior", ("z[0]",), frozenset()),
        Term("transition", ("z[t-1]", "z[t]"), frozenset({"t"})),
        Term("part", ("z[t]", "y[t]"), frozenset({"t"})),
        *more.get("terms", ()),
    ]
    chain = Chain("t", STEPS - 1, {"z[t]": "z[t-1]"}, {"z[t-1]": "z[0]"}, {"z[t-1]": "z[99]"})
    inside = dict.fromkeys(("z[t-1]", "z[t]", "y[t]"), frozenset({"t"}))
    home = inside | dict.fromkeys(("z[0]", "z[99]"), frozenset()) | more.get("home", {})
    return make_plan(
        terms, dict.fromkeys(home, 3), {"t": STEPS - 1} | more.get("plates", {}), home, (), [chain]
    )


def test_a_chain_is_one_step_of_the_plan_run_again_and_again() -> None:
    plan = hidden_markov_plan()
    alone, advance, end = plan.steps
    assert isinstance(alone, Eliminate)
    assert (alone.variable, alone.plates) == ("y[t]", ("t",))  # of all steps at once
    assert isinstance(advance, Advance)
    assert [m.variables for m in advance.messages] == [("z[t-1]",)]
    assert advance.flops == (STEPS - 1) * advance.step.flops == (STEPS - 1) * 9 * 3
    assert isinstance(end, Eliminate)
    assert end.variable == "z[99]"
    assert slots_are_used_once(plan)


def test_the_cost_of_a_chain_does_not_grow_with_what_stands_beside_it() -> None:
    other = Term("other", ("w",), frozenset())
    plan = hidden_markov_plan(terms=[other], home={"w": frozenset()})
    (advance,) = (step for step in plan.steps if isinstance(step, Advance))
    assert [m.variables for m in advance.messages] == [("z[t-1]",)]


def test_a_variable_that_every_step_sees_goes_along_in_the_messages() -> None:
    seen = Term("seen", ("z[t]", "w"), frozenset({"t"}))
    plan = hidden_markov_plan(terms=[seen], home={"w": frozenset()})
    (advance,) = (step for step in plan.steps if isinstance(step, Advance))
    assert [set(m.variables) for m in advance.messages] == [{"z[t-1]", "w"}]


def test_variables_that_a_step_couples_share_a_message() -> None:
    apart = two_chains()
    assert [m.variables for m in apart.messages] == [("a[t-1]",), ("b[t-1]",)]
    together = two_chains(Term("both", ("a[t]", "b[t]"), frozenset({"t"})))
    assert [set(m.variables) for m in together.messages] == [{"a[t-1]", "b[t-1]"}]
    # One after the other, so the nine joint states cost 9 x 3 twice instead of 9 x 9.
    assert together.step.largest == 27


def two_chains(*more: Term) -> Advance:
    terms = [
        *(Term(f"prior {v}", (f"{v}[0]",), frozenset()) for v in "ab"),
        *(Term(v, (f"{v}[t-1]", f"{v}[t]"), frozenset({"t"})) for v in "ab"),
        *more,
    ]
    chain = Chain(
        "t",
        9,
        {f"{v}[t]": f"{v}[t-1]" for v in "ab"},
        {f"{v}[t-1]": f"{v}[0]" for v in "ab"},
        {f"{v}[t-1]": f"{v}[9]" for v in "ab"},
    )
    home: dict[Axis, frozenset[Axis]]
    home = {f"{v}[{t}]": frozenset({"t"}) for v in "ab" for t in ("t", "t-1")}
    home |= {f"{v}[{t}]": frozenset() for v in "ab" for t in (0, 9)}
    plan = make_plan(terms, dict.fromkeys(home, 3), {"t": 9}, home, (), [chain])
    (advance,) = (step for step in plan.steps if isinstance(step, Advance))
    return advance


def test_chains_in_a_plate_that_meet_a_chain_outside_of_it_are_refused() -> None:
    n = frozenset({"n"})
    terms = [
        Term("prior", ("w[0]",), frozenset()),
        Term("inner prior", ("z[0]",), n),
        Term("w", ("w[t-1]", "w[t]"), frozenset({"t"})),
        Term("z", ("z[t-1]", "z[t]", "w[t]"), n | {"t"}),
    ]
    names = "wz"
    chain = Chain(
        "t",
        9,
        {f"{v}[t]": f"{v}[t-1]" for v in names},
        {f"{v}[t-1]": f"{v}[0]" for v in names},
        {f"{v}[t-1]": f"{v}[9]" for v in names},
    )
    home: dict[Axis, frozenset[Axis]]
    home = {"w[t]": frozenset("t"), "w[t-1]": frozenset("t"), "w[0]": frozenset()}
    home |= {"z[t]": n | {"t"}, "z[t-1]": n | {"t"}, "z[0]": n, "w[9]": frozenset(), "z[9]": n}
    with pytest.raises(IntractableError, match="exponential"):
        make_plan(terms, dict.fromkeys(home, 2), {"t": 9, "n": 5}, home, (), [chain])


def test_a_plan_with_a_chain_prints_its_step() -> None:
    text = str(hidden_markov_plan())
    assert "for 99 t, auto: prior * transition" in text
    assert "each: sum out z[t-1]: message 0 * transition" in text
