"""The tutorial's report: one HTML page that needs nothing but itself."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import marginax.storage as storage
from marginax.pages import page, picture, table
from marginax.tutorial.steps import DRAWS, MODES, RESTARTS, STEPS, WARMUP, Explored


def write_report(
    out: Path,
    results: Mapping[str, Any],
    explored: Explored,
    explanation: str,
    figures: Sequence[tuple[str, str]],
) -> Path:
    """Write ``index.html``, with the figures inside.

    Returns
    -------
    Path of the page
    """
    pictures = {name: picture((out / name).read_bytes(), caption) for name, caption in figures}
    best, guide, nuts = results["map"], results["guide"], results["nuts"]
    two_modes = sum(1 for m in ("low first", "high first") if explored.shares[m] > 0)
    body = [
        "<h1>A Gaussian mixture, its assignments summed out</h1>",
        f"<p>Five points, {_list(results['data'])}, and a mixture of two Gaussians with one scale. Which "
        "component a point came from is a discrete latent variable, <code>assignment</code>. It is "
        "summed out exactly, so that everything else can be trained by gradients and sampled by "
        "NUTS, and afterwards it is read back exactly.</p>",
        "<h2>What is summed out, and what that costs</h2>",
        f"<pre>{html.escape(explanation)}</pre>",
        "<h2>Training a MAP estimate</h2>",
        f"<p>The likelihood of a mixture has local optima. Of {RESTARTS} random initialisations, with two of "
        f"the points as centres, the best has loss {best['initial_loss']:.3f}; from there {STEPS} Adam steps "
        f"lead to {best['loss']:.3f}.</p>",
        pictures["svi_loss.png"],
        pictures["svi_gradient_norms.png"],
        table(
            ("", "component 0", "component 1"),
            [
                ("weight", *(f"{v:.4f}" for v in best["weights"])),
                ("centre", *(f"{v:.4f}" for v in best["locs"])),
                ("scale (shared)", f"{best['scale']:.4f}", ""),
            ],
        ),
        pictures["mixture_density.png"],
        "<p>Two fifths of the points are in one component, three fifths in the other; the Dirichlet(1/2) "
        "prior moves the weights a little outwards, to 0.375 and 0.625. Starts with too large a scale can "
        "end with everything in one cluster, which is why the start is chosen.</p>",
        "<h2>Serving: which component?</h2>",
        f"<p>Assignment of the data (joint mode): {_list(results['assignment'])}. One random posterior "
        f"assignment: {_list(results['random_assignment'])}. The boundary between the components is at "
        f"{results['boundary']:.3f}.</p>",
        pictures["map_assignment.png"],
        pictures["random_assignment.png"],
        "<h2>Serving: enumerating in the guide</h2>",
        f"<p>A second guide keeps the global parameters and has a free membership probability for every "
        f"point. Its assignment is summed out in the guide. After {STEPS} steps its loss is "
        f"{guide['loss']:.3f}. It falls towards the MAP estimate's {best['loss']:.3f}, because for given global "
        "parameters this guide can match the exact posterior; the difference is the divergence from it "
        "that is still left.</p>",
        pictures["guide_loss.png"],
        pictures["guide_gradient_norms.png"],
        pictures["membership.png"],
        table(
            ("point", "exact posterior", "guide"),
            [
                (f"{x:g}", _pair(exact), _pair(fitted))
                for x, exact, fitted in zip(
                    results["data"], results["membership"], guide["assignment_probs"], strict=True
                )
            ],
        ),
        "<h2>The whole posterior: collapsed NUTS</h2>",
        f"<p>{WARMUP} warm-up steps and {DRAWS} draws of the weights, centres and scale, with "
        f"{nuts['divergences']} divergences. The components are exchangeable, so the posterior has two equal "
        "modes, one for each way of numbering them, and NUTS seldom crosses from one to the other. The membership "
        "probabilities that go with a draw tell where it is:</p>",
        table(
            ("mode", "what it means", "share of draws"),
            [(mode, MODES[mode], f"{share:.1%}") for mode, share in explored.shares.items()],
        ),
        _mode_note(explored, two_modes),
        pictures["nuts_histogram.png"],
        pictures["nuts_trace.png"],
        _summary_table(nuts["summary"]),
        "<h2>Time</h2>",
        "<p>Wall-clock seconds, compilation included.</p>",
        table(("step", "seconds"), [(k, f"{v:.2f}") for k, v in results["timings"].items()]),
    ]
    path = out / "index.html"
    storage.replace_text(path, page("Marginax: a Gaussian mixture", body))
    return path


def mode_sentence(explored: Explored) -> str:
    """Which modes a chain visited, in words."""
    visited = [m for m in ("low first", "high first") if explored.shares[m] > 0]
    where = {
        0: "The chain never found two clusters",
        1: "The chain stayed in one of the two mirror-image modes",
        2: "The chain visited both mirror-image modes",
    }[len(visited)]
    wide = explored.shares["one cluster"]
    if wide == 0:
        return where + "."
    return (
        f"{where}, and spent {wide:.1%} of its draws in a third, wide mode, where one component with a "
        "large scale has all five points and the other is free to wander: the exact posterior has "
        "it too."
    )


def _mode_note(explored: Explored, two_modes: int) -> str:
    sentence = mode_sentence(explored)
    means = ""
    if two_modes:
        means = (
            f" Over the draws in those modes the mean centres are {explored.locs_mean[0]:.2f} and "
            f"{explored.locs_mean[1]:.2f}, and the mean scale {explored.scale_mean:.2f}: larger than "
            "the MAP estimate, because five points leave the scale uncertain upwards."
        )
    return f'<p class="note">{html.escape(sentence + means)}</p>'


def _summary_table(summary: Mapping[str, Mapping[str, float]]) -> str:
    columns = list(next(iter(summary.values())))
    rows = [
        (name, *("-" if row[c] is None else f"{row[c]:.2f}" for c in columns))
        for name, row in summary.items()
    ]
    return table(("site", *columns), rows)


def _list(values: Sequence[Any]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def _pair(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.4f}" for v in values)
