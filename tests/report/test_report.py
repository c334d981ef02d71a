"""Reports as a reader has them: parsed, their numbers held against the estimator's, their pictures opened."""

import base64
import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from copy import copy
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from scipy import stats as scipy_stats
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import marginax.distributions as dist
from marginax.mixture import GaussianMixture, HiddenMarkov, MixtureModel, load, save
from marginax.mixture.fitted import Fit
from marginax.mixture.maximization import beginning
from marginax.mixture.starts import starting_labels
from marginax.pages import Html, escaped, picture, table
from marginax.report import convergence, write_report
from marginax.report.chains import in_words
from marginax.report.drawing import colour, drawable, few, legend, line, panels, thinned
from marginax.report.facts import gather
from marginax.report.marginals import densities
from marginax.report.overview import prior_in_words
from marginax.report.quantities import own_values
from marginax.report.text import counted, number, percent

SCRIPT, DOLLARS = "<script>alert('x')</script>", '$x_1$ & "$y$"'
stats: Any = scipy_stats  # whose types do not tell what is frozen
WORDS = "<b>bold</b> $\\alpha$", "blå"
SECTIONS = "fitted components densities pairs certainty convergence posterior chains usage".split()


class Page(HTMLParser):
    """A page: its tags, checked to be closed in order, and its text by section, and its tables."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {"top": ""}
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.section = "top"
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"]
            self.text[self.section] = ""
        if tag == "table":
            self.tables.setdefault(self.section, []).append([])
        if tag == "tr":
            self.tables[self.section][-1].append([])
        if tag in ("td", "th"):
            self.tables[self.section][-1][-1].append("")
        if tag == "br":
            self.handle_data("\n")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text[self.section] += data
        if "td" in self.open or "th" in self.open:
            self.tables[self.section][-1][-1][-1] += data

    def images(self, kind: str) -> list[bytes]:
        """The pictures of a kind."""
        start = f"data:image/{kind};base64,"
        sources = [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]
        return [base64.b64decode(s.removeprefix(start)) for s in sources if s.startswith(start)]

    def rows(self, section: str, which: int = 0) -> dict[str, list[str]]:
        """A table's rows by their first cell."""
        return {row[0]: row[1:] for row in self.tables[section][which]}


def check(page: Page) -> None:
    """What is true of every page."""
    assert page.source.startswith("<!doctype html>")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "form"})
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        if tag == "img":
            assert (attrs["src"] or "").startswith("data:image/")
            assert attrs["alt"]
        if tag == "a":
            assert (attrs["href"] or "").startswith("#")
    assert "url(" not in page.source
    assert "@import" not in page.source
    targets = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert targets == {f"#{name}" for name in page.text if name != "top"}
    for name in SECTIONS:
        assert len(page.text[name].strip()) > 40, name
    for data in page.images("svg+xml"):
        assert ElementTree.fromstring(data).tag.endswith("svg")
    for data in page.images("png"):
        assert (imread(io.BytesIO(data))[..., :3] < 0.99).any(axis=-1).mean() > 0.003
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", page.source).lower())
    assert len(page.source) < 5e6


def fitted(estimator: Any, X: Any) -> Any:
    """Few draws may raise doubts, which are not the matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X)


def at_the_start(design: Any, rows: Any, settings: Any) -> Fit:
    """In place of a fit."""
    labels = starting_labels(design, rows.cells, rows.observed, 1, settings.seed)[0]
    rows = rows._replace(is_real=np.ones(len(labels), bool))
    with jax.enable_x64(True):
        point = {name: np.asarray(value) for name, value in beginning(design, rows, labels).items()}
    draws = {name: value[None] for name, value in point.items()}
    norms = {name: np.array([10.0, 1e-3, 0.0]) for name in point}
    return Fit(point, draws, np.array([30.0, 20.0, 19.5]), norms, "")


def begun(estimator: Any, X: Any, **parameters: Any) -> Any:
    """As if fitted, at the values where a fit would begin: quick, and a report does not care."""
    with patch("marginax.mixture.estimator.fit", at_the_start):
        return estimator.set_params(random_state=0).fit(X, **parameters)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


# -- two columns, by NUTS, with names that are hard to write


@pytest.fixture(scope="module")
def clusters() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    second = rng.random(90) < 0.4
    x = rng.normal(size=90) + 4 * second
    return pd.DataFrame({SCRIPT: x, DOLLARS: 100 * rng.normal(size=90) * (1 + second)})


@pytest.fixture(scope="module")
def sampled(clusters: pd.DataFrame) -> Any:
    options: dict[str, Any] = {"n_draws": 100, "n_warmup": 100, "n_chains": 2, "n_init": 2}
    return fitted(GaussianMixture(2, method="nuts", random_state=0, **options), clusters)


@pytest.fixture(scope="module")
def sampled_page(sampled: Any, clusters: pd.DataFrame, folder: Path) -> Page:
    return Page(write_report(folder / "sampled.html", sampled, clusters))


def test_a_page_of_draws_is_well_formed_and_needs_nothing_else(sampled_page: Page):
    check(sampled_page)
    assert len(sampled_page.images("svg+xml")) == 4
    assert len(sampled_page.images("png")) == 2
    assert "2 chains of 100 draws" in sampled_page.text["fitted"]
    assert "numbering" in sampled_page.text["posterior"]  # what relabelling said
    assert "Left out" not in "".join(sampled_page.text.values())


def test_hostile_names_are_text_on_the_page_and_in_the_pictures(sampled_page: Page):
    assert SCRIPT in sampled_page.text["fitted"]
    assert DOLLARS in sampled_page.text["components"]
    drawn = [data.decode() for data in sampled_page.images("svg+xml")]
    assert any('$x_1$ &amp; "$y$"' in text for text in drawn)  # no mathematics of it
    assert any("&lt;script&gt;alert(" in text for text in drawn)


def test_the_components_are_those_of_the_estimator(sampled: Any, sampled_page: Page):
    rows = sampled_page.rows("components")
    summary = sampled.summary()
    for k in range(2):
        shown, interval = rows["weight"][k].split("\n")
        low, high = map(float, interval.split(" to "))
        own = summary[f"weights[{k}]"]
        assert float(shown) == pytest.approx(own["mean"], abs=0.006)
        assert [low, high] == pytest.approx([own["5.0%"], own["95.0%"]], abs=0.006)
        shown, interval = rows[f"{DOLLARS}: mean ± sd"][k].split("\n")
        mean, sd = map(float, shown.split(" ± "))
        own = summary[f"means[{k},1]"]
        assert mean == pytest.approx(own["mean"], abs=0.6)
        expected = np.sqrt(sampled.posterior_["covariances"][:, k, 1, 1]).mean()
        assert sd == pytest.approx(expected, abs=0.6)
        low, high = map(float, interval.split(";")[0].split(" to "))
        assert [low, high] == pytest.approx([own["5.0%"], own["95.0%"]], abs=0.6)


def test_the_summary_is_the_estimators(sampled: Any, sampled_page: Page):
    rows = sampled_page.rows("chains")
    summary = sampled.summary()
    assert list(rows)[1:] == list(summary)
    for label, row in summary.items():
        words, mean, _, _, _, effective, _, r_hat = rows[label]
        assert float(mean.replace(",", "")) == pytest.approx(row["mean"], abs=row["std"] / 9)
        assert float(effective) == pytest.approx(row["ess_bulk"], abs=0.5)
        assert float(r_hat) == pytest.approx(row["r_hat"], abs=5e-4)
        assert words
    assert rows["covariances[1,0,1]"][0] == f"component 1, {SCRIPT} and {DOLLARS}"


def test_the_rows_that_are_unsure_are_those_of_the_estimator(
    sampled: Any, clusters: pd.DataFrame, sampled_page: Page
):
    probabilities, spread = sampled.predict_proba(clusters, return_std=True)
    most = probabilities.max(1)
    clear = int((most > 0.95).sum())
    assert f"{clear} of 90 rows" in sampled_page.text["certainty"]
    shown = sampled_page.tables["certainty"][1][1:]
    order = np.argsort(most, kind="stable")[:20]
    assert [int(row[0]) for row in shown] == order.tolist()
    for row, at in zip(shown[:3], order, strict=False):
        k = int(probabilities[at].argmax())
        assert row[1] == f"{k}: {most[at]:.3f} ± {spread[at, k]:.3f}"
        assert float(row[3]) == pytest.approx(clusters.iloc[at, 0], rel=1e-5)


def test_without_the_table_the_page_says_what_is_left_out_and_how_to_get_it(
    sampled: Any, folder: Path
):
    page = Page(write_report(folder / "no_table.html", sampled))
    check(page)
    assert "written without the table" in page.text["top"]
    assert 'save("model.mx", estimator, table)' in page.text["top"]
    for name in ("densities", "pairs", "certainty"):
        assert "Left out" in page.text[name]
    assert len(page.images("svg+xml")) == 3  # curves, convergence, posterior
    assert len(page.images("png")) == 2  # ellipses, traces
    assert "rows that most probably belong to it" not in page.rows("components")


def test_a_big_table_is_thinned_and_the_page_says_so(
    sampled: Any, clusters: pd.DataFrame, folder: Path
):
    big = pd.concat([clusters] * 1112, ignore_index=True)
    page = Page(write_report(folder / "big.html", sampled, big))
    check(page)
    assert "averaged over 90 of the 200 posterior draws" in page.text["top"]
    assert "This page shows another table, of 100,080 rows" in page.text["fitted"]
    assert "Of 100,080 rows 3,000 are drawn" in page.text["pairs"]
    assert "Of 100,080 rows 500 are drawn" in page.text["certainty"]


@pytest.fixture(scope="module")
def plain() -> Any:
    """To be copied before it is changed."""
    return begun(GaussianMixture(1), np.arange(9.0)[:, None])


def test_warnings_are_at_the_top_in_words_or_nothing_is_amiss(plain: Any, folder: Path):
    page = Page(write_report(folder / "fine.html", plain))
    assert "Nothing is amiss" in page.text["top"]
    model = copy(plain)
    model.warnings_ = (
        "the fit <has> not converged.",
        "there may be a better one; raise n_init, or take fewer components.",
    )
    page = Page(write_report(folder / "doubtful.html", model))
    assert "the fit <has> not converged." in page.text["top"]
    assert "raise the number of starts, or take fewer components" in page.text["top"]
    assert "Nothing is amiss" not in page.text["top"]


def test_rows_that_are_all_certain_are_not_listed(folder: Path):
    X = np.concatenate([np.arange(9.0), 1000 + np.arange(9.0)])[:, None]
    model = begun(GaussianMixture(2), X)
    page = Page(write_report(folder / "certain.html", model, X))
    check(page)
    assert "All rows are certain" in page.text["certainty"]
    assert "least certain. Rows" not in page.text["certainty"]
    assert len(page.tables["certainty"]) == 1


def test_the_loss_is_drawn_as_its_distance_to_the_best(plain: Any):
    losses = 4e9 + np.array([3.0, 0.5, 0.0])
    model = copy(plain)
    model.fit_ = replace(model.fit_, losses=losses)
    with patch("marginax.report.convergence.drawn") as drawn:
        convergence.section(gather(model))
    figure = drawn.call_args[0][0]
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), losses - 4e9)
    assert axes.yaxis.get_offset_text().get_text() == ""


@pytest.mark.parametrize("width", [6.4, 10.1])
def test_a_legend_stays_inside_of_its_picture(width: float):
    figure, (axes,) = panels(1, width=width)
    for k in range(10):
        axes.plot([0, 1], [k, k], label=f"component {k}" if k else "model, all together")
    legend(figure, axes)
    FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_sixteen_components_have_colours_of_their_own_and_others_other_lines():
    assert len({colour(k) for k in range(16)}) == 16
    assert len({(colour(k), line(k)) for k in range(64)}) == 64


# -- columns of many kinds, words and missing cells, the most probable parameters


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    second = rng.random(120) < 0.4
    found = pd.DataFrame(
        {
            "income": np.exp(rng.normal(size=120) * 1.5 + 2 * second),
            "share": rng.beta(2 + 6 * second, 4),
            "visits": rng.poisson(np.where(second, 12, 2)).astype(float),
            "height": 170 + 8 * rng.standard_t(4, 120),
            "Größe": rng.normal(size=120) + 3 * second,
            "nothing": np.full(120, 7.0),
            "word": np.where(rng.random(120) < np.where(second, 0.9, 0.2), *WORDS),
            "owns": (rng.random(120) < 0.3 + 0.4 * second).astype(float),
        }
    )
    for name in ("income", "visits", "word", "Größe"):
        found.loc[rng.random(120) < 0.08, name] = None
    return found


@pytest.fixture(scope="module")
def mixed(people: pd.DataFrame) -> Any:
    groups = [
        ("income", "log_normal", ["income"]),
        ("share", "beta", ["share"]),
        ("visits", "poisson", ["visits"]),
        ("height", "student_t", ["height"]),
        ("size", "gaussian", ["Größe", "nothing"]),
        ("word", "categorical", ["word"]),
        ("owns", "bernoulli", ["owns"]),
    ]
    return begun(MixtureModel(2, components=groups), people)


@pytest.fixture(scope="module")
def mixed_page(mixed: Any, people: pd.DataFrame, folder: Path) -> Page:
    return Page(write_report(folder / "mixed.html", mixed, people))


def test_a_page_of_many_kinds_of_columns(mixed_page: Page, people: pd.DataFrame):
    check(mixed_page)
    missing = int(people.isna().to_numpy().sum())
    assert f"{missing} cells of 960 missing" in mixed_page.text["fitted"]
    assert "missing" in {c for row in mixed_page.tables["certainty"][1] for c in row}
    assert "point estimate" in mixed_page.text["posterior"]
    assert "Left out" in mixed_page.text["chains"]
    assert "Student-t" in mixed_page.text["fitted"]
    words = WORDS[0]
    assert f"word: probability of {words}" in mixed_page.rows("components")
    drawn = [data.decode() for data in mixed_page.images("svg+xml")]
    assert any("&lt;b&gt;bold&lt;/b&gt; $" in text for text in drawn)


def test_the_most_probable_parameters_are_the_estimators(mixed: Any, mixed_page: Page):
    rows, found = mixed_page.rows("components"), mixed.parameters_
    expected = {
        "weight": found["weights"],
        "income: median": np.exp(found["income.locs"][:, 0]),
        "visits: rate": found["visits.rates"][:, 0],
        "height: centre": found["height.means"][:, 0],
        "height: scale": found["height.scales"][:, 0],
        "height: degrees of freedom": found["height.df"],
        f"word: probability of {WORDS[0]}": found["word.probs"][:, 0],
        "owns: probability of 1": found["owns.probs"][:, 0],
    }
    for name, values in expected.items():
        shown = [float(cell) for cell in rows[name]]
        np.testing.assert_allclose(shown, values, rtol=2e-3, atol=6e-4, err_msg=name)
    shown = [float(cell.split(" ± ")[1]) for cell in rows["Größe: mean ± sd"]]
    sds = np.sqrt(found["size.covariances"][:, 0, 0])
    np.testing.assert_allclose(shown, sds, rtol=0.05)


def test_a_file_with_its_table_gives_the_same_page(
    mixed: Any, people: pd.DataFrame, mixed_page: Page, folder: Path
):
    save(folder / "mixed.mx", mixed, people)
    again = Page(write_report(folder / "again.html", load(folder / "mixed.mx")))
    assert again.source == mixed_page.source


def test_the_density_of_a_column_is_its_familys(mixed: Any, people: pd.DataFrame):
    facts = gather(mixed, people)
    points = np.repeat(np.array([[0.5, 0.3, 3.0, 175.0, 1.0, 7.1, 0.0, 0.0]]), 4, 0)
    points[1:, :5] = [[8.0, 0.6, 0.0, 150.0, -2.0], [90.0, 0.9, 14.0, 170, 4], [1, 0.5, 1, 168, 0]]
    found = densities(facts, points)[:, 0]
    assert np.isnan(found[..., 6]).all()  # words have none
    p = mixed.parameters_
    mean, concentration = p["share.means"][:, 0], p["share.concentrations"][:, 0]
    covariance = p["size.covariances"]
    expected: dict[int, Any] = {
        0: stats.lognorm(p["income.scales"][:, 0], scale=np.exp(p["income.locs"][:, 0])).pdf,
        1: stats.beta(mean * concentration, (1 - mean) * concentration).pdf,
        2: stats.poisson(p["visits.rates"][:, 0]).pmf,
        3: stats.t(p["height.df"], p["height.means"][:, 0], p["height.scales"][:, 0]).pdf,
        4: stats.norm(p["size.means"][:, 0], np.sqrt(covariance[:, 0, 0])).pdf,
        5: stats.norm(p["size.means"][:, 1], np.sqrt(covariance[:, 1, 1])).pdf,
    }
    for column, density in expected.items():
        values = [density(x) for x in points[:, column]]
        np.testing.assert_allclose(found[..., column], values, rtol=1e-9, err_msg=str(column))


# -- one component, one column


def test_one_component_and_one_column(folder: Path):
    X = np.random.default_rng(2).poisson(300.0, (30, 1))
    model = begun(MixtureModel(1, components="poisson"), X)
    page = Page(write_report(folder / "one.html", model, X))
    check(page)
    assert "fewer than two columns" in page.text["pairs"]
    assert "There is one component" in page.text["certainty"]
    assert float(page.rows("components")["x0: rate"][0]) == pytest.approx(
        model.parameters_["rates"][0, 0], abs=0.06
    )


# -- a hidden Markov model


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    rng = np.random.default_rng(3)
    states = np.repeat([0, 1, 0, 1], [30, 20, 30, 20])
    return np.column_stack([rng.normal(size=100) + 6 * states, rng.normal(size=100)])


@pytest.fixture(scope="module")
def chain(series: np.ndarray) -> Any:
    return begun(HiddenMarkov(2, components="normal"), series, lengths=[40, 60])


def test_a_series_has_its_path_and_its_transitions(chain: Any, series: np.ndarray, folder: Path):
    page = Page(write_report(folder / "chain.html", chain, series, lengths=[40, 60]))
    check(page)
    assert list(page.text) == [
        *("top", "fitted", "components", "path", "transitions"),
        *SECTIONS[2:],
    ]
    path = chain.predict(series, lengths=[40, 60])
    rows = page.rows("path")
    for k in range(2):
        assert rows[f"state\xa0{k}"][0] == str(int((path == k).sum()))
    stays = [[k for k, _ in groupby(part)] for part in (path[:40], path[40:])]
    for k in range(2):
        assert int(rows[f"state\xa0{k}"][1]) == sum(part.count(k) for part in stays)
    shown = [
        [float(cell) for cell in page.rows("transitions")[f"from state\xa0{k}"]] for k in (0, 1)
    ]
    np.testing.assert_allclose(shown, chain.parameters_["transitions"], atol=6e-4)
    assert "another series begins" in page.text["path"]
    assert "component" not in page.text["components"]
    without = Page(write_report(folder / "chain_alone.html", chain))
    check(without)
    assert "Left out: the path of states" in without.text["path"]
    assert len(without.rows("transitions")) == 3


# -- the variational posterior, and many columns


@pytest.mark.slow
def test_many_columns_are_shown_in_part_and_the_page_says_so(folder: Path):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(120, 30)) + 4 * (rng.random((120, 1)) < 0.4)
    options: dict[str, Any] = {"method": "vi", "n_draws": 100, "n_init": 2, "random_state": 0}
    model = fitted(GaussianMixture(2, **options), X)
    page = Page(write_report(folder / "wide.html", model, X))
    check(page)
    assert "The first 12 of 30 columns of numbers are shown" in page.text["densities"]
    assert "5 of the 30 columns" in page.text["pairs"]
    assert "The first 24 of 61 are shown" in page.text["posterior"]
    assert "no chains" in page.text["chains"]
    assert "estimator.summary() has all" in page.text["chains"]
    assert "x29: mean ± sd" in page.rows("components")


@pytest.mark.parametrize("covariance", ["tied", "spherical", "diag"])
def test_every_covariance_has_ellipses_and_deviations(covariance: str, folder: Path):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(60, 2)) * [1, 5] + 6 * (rng.random((60, 1)) < 0.4)
    model = begun(GaussianMixture(2, covariance_type=covariance, priors="flat"), X)
    page = Page(write_report(folder / f"{covariance}.html", model, X))
    check(page)
    assert "maximum likelihood" in page.text["fitted"]
    found = model.covariances_
    expected = {
        "tied": lambda: np.full(2, found[1, 1]),
        "spherical": lambda: found,
        "diag": lambda: found[:, 1],
    }[covariance]()
    shown = [float(cell.split(" ± ")[1]) for cell in page.rows("components")["x1: mean ± sd"]]
    np.testing.assert_allclose(shown, np.sqrt(expected), rtol=0.02)


def test_what_is_not_fitted_or_does_not_fit_is_refused(chain: Any, folder: Path):
    with pytest.raises(NotFittedError):
        write_report(folder / "none.html", GaussianMixture(2))
    with pytest.raises(ValueError, match="features"):
        write_report(folder / "none.html", chain, np.zeros((4, 3)))
    assert not (folder / "none.html").exists()


# -- small pieces


@pytest.mark.parametrize(
    ("value", "scale", "shown"),
    [
        (0.51234, 0.03, "0.512"),
        (80.83, 1.4, "80.8"),
        (12345.6, 300.0, "12,346"),
        (1.5e12, 1e10, "1.5e+12"),
        (1.23456e-9, 1e-10, "1.235e-09"),
        (0.0, 0.0, "0"),
        (3.14159, None, "3.142"),
        (float("nan"), 1.0, "-"),
        (-2.0, float("inf"), "-2"),
    ],
)
def test_numbers_have_the_digits_that_mean_something(value: float, scale: Any, shown: str):
    assert number(value, scale) == shown


def test_small_words():
    assert [counted(1, "category"), counted(2000, "category")] == ["1 category", "2,000 categories"]
    assert [percent(s) for s in (0, 1e-5, 0.5, 0.99999, 1)] == [
        *("0%", "less than 0.1%", "50%", "more than 99.9%", "100%")
    ]
    assert drawable("a\n$b$\x07 _c_") == r"a \$b\$ _c_"
    assert len(drawable("w" * 99)) < 30
    assert thinned(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert thinned(100, 3).tolist() == [0, 50, 99]
    assert len(set(few(100, 10).tolist())) == 10


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (dist.Normal(0.0, 3.0), "Normal, loc 0, scale 3"),
        (dist.Normal(np.zeros(2), np.array([1.0, 2.0])).to_event(1), "Normal, loc 0, scale 1 to 2"),
        (dist.Dirichlet(np.ones(3)), "Dirichlet, 1 for each"),
        (dist.Beta(2.0, 3.0), "Beta(2, 3)"),
        (dist.WishartCholesky(4.0, rate_matrix=np.eye(2)), "Wishart with 4 degrees of freedom"),
    ],
)
def test_priors_in_words(prior: Any, words: str):
    assert prior_in_words(prior) == words


def test_groups_whose_names_begin_alike_keep_apart(folder: Path):
    X = np.random.default_rng(5).normal(size=(30, 2))
    groups = [("a", "normal", [0]), ("a.b", "student_t", [1])]
    model = begun(MixtureModel(2, components=groups), X)
    facts = gather(model, X)
    first, second = facts.design.groups
    assert set(own_values(first, facts.values)) == {"means", "covariances"}
    assert set(own_values(second, facts.values)) == {"means", "scales", "df"}
    assert in_words(facts, "a.b.scales[1,0]") == "component 1, x1"
    check(Page(write_report(folder / "alike.html", model, X)))


def test_labels_in_words(mixed: Any, chain: Any, people: pd.DataFrame):
    facts = gather(mixed, people)
    assert in_words(facts, "word.probs[1,0]") == f"component 1, {WORDS[0]}"
    assert in_words(facts, "size.covariances[0,1,1]") == "component 0, variance of nothing"
    assert in_words(facts, "height.df[1]") == "component 1"
    assert in_words(facts, "weights[1]") == "component 1"
    assert in_words(gather(chain), "transitions[1,0]") == "from state 1 to 0"


def test_cells_are_escaped_and_pictures_are_inside():
    assert table(("a<b",), [(Html("<b>x</b>"), "&")]) == (
        "<table><tr><th>a&lt;b</th></tr><tr><td><b>x</b></td><td>&amp;</td></tr></table>"
    )
    assert "<tr></tr>" not in table((), [("x",)])
    assert escaped("'\"<") == "&#x27;&quot;&lt;"
    assert picture(b"abc", 'a "b"') == (
        '<figure><img alt="a &quot;b&quot;" src="data:image/png;base64,YWJj">'
        "<figcaption>a &quot;b&quot;</figcaption></figure>"
    )
