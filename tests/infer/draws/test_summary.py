"""The summary's numbers, on draws whose statistics are known."""

import numpy as np
import pytest

from marginax.infer.draws.summary import print_table, summary_table

CHAINS, DRAWS = 4, 1000


@pytest.fixture(scope="module")
def draws() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "mu": rng.normal(3.0, 2.0, size=(CHAINS, DRAWS)),
        "pair": rng.exponential([1.0, 10.0], size=(CHAINS, DRAWS, 2)),
        "matrix": rng.normal(size=(CHAINS, DRAWS, 2, 2)),
    }


def test_there_is_a_row_for_every_scalar(draws: dict[str, np.ndarray]):
    table = summary_table(draws)
    assert list(table) == [
        *["mu", "pair[0]", "pair[1]"],
        *["matrix[0,0]", "matrix[0,1]", "matrix[1,0]", "matrix[1,1]"],
    ]
    assert list(table["mu"]) == ["mean", "std", "5.0%", "95.0%", "ess_bulk", "ess_tail", "r_hat"]


def test_moments_and_intervals(draws: dict[str, np.ndarray]):
    table = summary_table(draws)
    n = CHAINS * DRAWS
    assert table["mu"]["mean"] == draws["mu"].mean()
    assert table["pair[1]"]["std"] == pytest.approx(draws["pair"][..., 1].std(ddof=1))
    # The highest-density interval of an exponential begins at zero and ends at its 90% quantile;
    # a quantile's standard error is sqrt(p (1 - p) / n) over the density there, 0.1 / scale.
    error = np.sqrt(0.9 * 0.1 / n) / 0.1
    for name, scale in (("pair[0]", 1.0), ("pair[1]", 10.0)):
        assert table[name]["5.0%"] == pytest.approx(0.0, abs=5 * error * scale)
        assert table[name]["95.0%"] == pytest.approx(scale * np.log(10), abs=5 * error * scale)
    assert list(summary_table(draws, prob=0.5)["mu"])[2:4] == ["25.0%", "75.0%"]


def test_independent_draws_count_in_full_and_r_hat_is_one(draws: dict[str, np.ndarray]):
    row = summary_table(draws)["mu"]
    # The estimate of an effective size of n independent draws varies by some n / sqrt(n / 10).
    assert row["ess_bulk"] == pytest.approx(CHAINS * DRAWS, rel=5 / np.sqrt(CHAINS * DRAWS / 10))
    assert row["r_hat"] == pytest.approx(1.0, abs=0.01)


def test_correlated_draws_count_for_less():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(CHAINS, DRAWS))
    walk = np.zeros((CHAINS, DRAWS))
    for i in range(1, DRAWS):
        walk[:, i] = 0.8 * walk[:, i - 1] + noise[:, i]
    # An autoregression of coefficient 0.8 has (1 - 0.8) / (1 + 0.8) of the effective size.
    expected = CHAINS * DRAWS / 9
    row = summary_table({"walk": walk})["walk"]
    assert row["ess_bulk"] == pytest.approx(expected, rel=5 / np.sqrt(expected / 10))


def test_chains_that_disagree_have_a_large_r_hat():
    rng = np.random.default_rng(2)
    apart = rng.normal(size=(2, DRAWS)) + np.array([[0.0], [5.0]])
    assert summary_table({"x": apart})["x"]["r_hat"] > 1.5


def test_one_chain_has_no_r_hat(draws: dict[str, np.ndarray]):
    row = summary_table({"mu": draws["mu"][:1]})["mu"]
    assert np.isnan(row["r_hat"])
    assert np.isfinite(row["ess_bulk"])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_draws_are_summarised_without_a_complaint(count: int):
    row = summary_table({"x": np.arange(float(count))[None]})["x"]
    assert row["mean"] == (count - 1) / 2
    assert np.isnan(row["std"]) == (count == 1)


def test_draws_that_never_move_are_summarised_too():
    row = summary_table({"x": np.ones((2, 50))})["x"]
    assert (row["mean"], row["std"]) == (1.0, 0.0)


def test_the_table_is_printed_a_row_a_scalar(
    draws: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
):
    print_table(summary_table({"pair": draws["pair"]}))
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["mean", "std", "5.0%", "95.0%", "ess_bulk", "ess_tail", "r_hat"]
    assert [row.split()[0] for row in rows] == ["pair[0]", "pair[1]"]
    assert len({len(line) for line in (header, *rows)}) == 1
    print_table({})
    assert capsys.readouterr().out == "no draws\n"
