"""The tutorial's figures: each can be read on its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import marginax.storage as storage
from marginax.pages import DARK, calm
from marginax.tutorial.mixture import DATA
from marginax.tutorial.steps import GRID, Explored, Fit, Guided, Served

LOW, HIGH = "#c2410c", "#1d4ed8"
COLOURS = (LOW, HIGH)


def draw_all(
    out: Path, fit: Fit, served: Served, guided: Guided, explored: Explored
) -> list[tuple[str, str]]:
    """Write every figure into a folder.

    Returns
    -------
    list of (file name, caption), in the tutorial's order
    """
    made = [
        ("svi_loss", _losses(fit.result.losses, "Training the MAP estimate: convergence of SVI")),
        (
            "svi_gradient_norms",
            _norms(fit.result.gradient_norms, "Training the MAP estimate: gradient norms"),
        ),
        ("mixture_density", _density(fit)),
        ("map_assignment", _map_assignment(served)),
        ("random_assignment", _random_assignment(served)),
        (
            "guide_loss",
            _losses(guided.result.losses, "Guide that enumerates the assignment: convergence"),
        ),
        (
            "guide_gradient_norms",
            _norms(
                guided.result.gradient_norms,
                "Guide that enumerates the assignment: gradient norm",
            ),
        ),
        ("membership", _membership(fit, guided)),
        ("nuts_histogram", _histogram(explored)),
        ("nuts_trace", _trace(explored)),
    ]
    for name, (figure, _) in made:
        with storage.replacing(out / f"{name}.png") as file:
            figure.savefig(file, format="png", dpi=110, facecolor="white")
    return [(f"{name}.png", caption) for name, (_, caption) in made]


def _axes(title: str, x: str, y: str, size: tuple[float, float] = (9, 3.4)) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=12, color=DARK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    calm(axes)
    return figure, axes


def _losses(losses: Any, title: str) -> tuple[Figure, str]:
    figure, axes = _axes(title, "step", "loss (negative ELBO, nats)")
    axes.plot(np.asarray(losses), color=DARK, linewidth=1.6)
    axes.set_yscale("log")
    axes.annotate(
        f"{float(losses[-1]):.3f}",
        (len(losses) - 1, float(losses[-1])),
        xytext=(0, 10),
        textcoords="offset points",
        ha="right",
    )
    return figure, f"The loss at each of {len(losses)} Adam steps, on a logarithmic scale."


def _norms(norms: Mapping[str, Any], title: str) -> tuple[Figure, str]:
    figure, axes = _axes(title, "step", "gradient norm (nats per unit)")
    for (name, values), colour in zip(norms.items(), (LOW, HIGH, DARK), strict=False):
        axes.plot(np.asarray(values), label=name, color=colour, linewidth=1.4)
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure, "The norm of each parameter's gradient, on the unconstrained scale."


def _normal_pdf(x: np.ndarray, loc: float, scale: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - loc) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))


def _density(fit: Fit) -> tuple[Figure, str]:
    figure, axes = _axes("Density of the fitted two-component mixture", "data value", "density")
    weights, locs, scale = (fit.estimates[n] for n in ("weights", "locs", "scale"))
    parts = [w * _normal_pdf(GRID, m, float(scale)) for w, m in zip(weights, locs, strict=True)]
    for k, part in enumerate(parts):
        label = f"component {k}: weight {weights[k]:.3f}, mean {locs[k]:.2f}"
        axes.plot(GRID, part, color=COLOURS[k], label=label)
    axes.plot(GRID, sum(parts), "--", color=DARK, linewidth=1, label="sum")
    axes.plot(np.asarray(DATA), np.zeros(len(DATA)), "k*", markersize=10, label="data")
    axes.legend(frameon=False, loc="upper center")
    return figure, "The two fitted components, weighted, their sum, and the five points."


def _map_assignment(served: Served) -> tuple[Figure, str]:
    figure, axes = _axes(
        "Most probable component of new points", "data value", "component", (9, 2.4)
    )
    axes.step(GRID, served.grid_assignment, where="mid", color=DARK)
    axes.plot(np.asarray(DATA), served.assignment, "k*", markersize=10, label="data")
    axes.axvline(served.boundary, color="#9ca3af", linestyle=":", label=f"{served.boundary:.2f}")
    axes.set_yticks([0, 1])
    axes.legend(frameon=False, loc="center right")
    return figure, "MAP assignment (temperature 0) on a grid of 180 new points."


def _random_assignment(served: Served) -> tuple[Figure, str]:
    figure, axes = _axes(
        "Random posterior assignments near the boundary",
        "data value",
        "component",
        (9, 2.8),
    )
    axes.plot(
        served.zoom,
        served.zoom_assignment,
        "x",
        color=HIGH,
        label="one random draw (temperature 1)",
    )
    axes.plot(
        served.zoom, served.zoom_membership, color=DARK, label="exact probability of component 1"
    )
    axes.set_yticks([0, 0.5, 1])
    axes.legend(frameon=False, loc="center left")
    return figure, "Between the clusters membership is uncertain, and draws show it."


def _membership(fit: Fit, guided: Guided) -> tuple[Figure, str]:
    figure, axes = _axes("Membership probabilities from the guide", "data value", "probability")
    for k in range(2):
        label = f"component {k}, mean {fit.estimates['locs'][k]:.2g}"
        axes.plot(np.asarray(DATA), guided.probs[:, k], "o", color=COLOURS[k], label=label)
    axes.set_ylim(-0.05, 1.05)
    axes.legend(frameon=False, loc="center")
    return figure, "The guide's assignment_probs after 200 steps, one pair for each point."


def _histogram(explored: Explored) -> tuple[Figure, str]:
    figure, axes = _axes(
        "Posterior of the two centres, by collapsed NUTS",
        "centre of component 0",
        "centre of component 1",
        (6.4, 6),
    )
    axes.grid(False)
    x, y = explored.draws["locs"].T
    counts, xs, ys, image = axes.hist2d(x, y, bins=[20, 20], cmap="viridis")
    axes.contour(
        np.log(counts + 3).T, extent=[xs[0], xs[-1], ys[0], ys[-1]], colors="white", alpha=0.8
    )
    figure.colorbar(image, ax=axes, label="draws in the bin")
    # Mark the two mirror images where they are in view, from the corners, where draws are rare.
    for mode, corner in (((0.5, 11.0), (0.03, 0.96)), ((11.0, 0.5), (0.97, 0.04))):
        if xs[0] <= mode[0] <= xs[-1] and ys[0] <= mode[1] <= ys[-1]:
            is_left = corner[0] < 0.5
            axes.annotate(
                f"mode near ({mode[0]:g}, {mode[1]:g})",
                mode,
                xytext=corner,
                textcoords="axes fraction",
                color="white",
                ha="left" if is_left else "right",
                va="top" if is_left else "bottom",
                fontsize=9,
                arrowprops={"arrowstyle": "-", "color": "white", "linewidth": 0.8},
            )
    return figure, (
        "Swapping the components changes nothing, so the posterior has two equal modes, near (0.5, 11) "
        "and (11, 0.5); a short chain usually stays in the one it finds."
    )


def _trace(explored: Explored) -> tuple[Figure, str]:
    figure, axes = _axes("Trace of the two centres during NUTS", "draw", "centre")
    for k in range(2):
        axes.plot(
            explored.draws["locs"][:, k], color=COLOURS[k], linewidth=1, label=f"component {k}"
        )
    # Above the plot: the chain may go anywhere inside it.
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure, "The same draws in order. A switch of modes would show as the lines crossing."
