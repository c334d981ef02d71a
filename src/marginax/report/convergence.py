"""Has the search for the most probable parameters come to an end?"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from marginax.pages import DARK, Html, drawn, escaped
from marginax.report.drawing import colour, drawable, headed, line, panels
from marginax.report.facts import Facts
from marginax.report.text import counted, number, paragraph

FEW = 4
"""Parameters whose names have room inside of the plot."""


def section(facts: Facts) -> list[str]:
    """Loss, gradient norms, what the starts said."""
    fitted = facts.estimator.fit_
    losses = np.asarray(fitted.losses)
    figure, (left, right) = panels(2, across=2, height=3.0)
    steps = np.arange(len(losses))
    above = losses - losses.min(initial=np.inf)
    left.plot(steps, above, color=DARK, linewidth=1.5, marker="." if len(losses) < 30 else "")
    headed(left, "Loss, above its lowest")
    left.set_ylabel("negative log density (nats)")
    left.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    for n, (name, norms) in enumerate(fitted.gradient_norms.items()):
        shown = np.where(np.asarray(norms) > 0, norms, np.nan)
        right.plot(steps, shown, line(n), color=colour(n), linewidth=1.3, label=drawable(name))
    headed(right, "Gradient norm of each parameter")
    right.set_yscale("log")
    right.set_ylabel("nats per unit")
    many = len(fitted.gradient_norms) > FEW
    where: Any = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if many else {}
    right.legend(frameon=False, fontsize=8, **where)
    for axes in (left, right):
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ends = f", at {number(float(losses[-1]))}" if len(losses) else ""
    parts: list[str] = [
        paragraph(
            f"After expectation-maximisation the best start took {counted(len(losses), 'iteration')} of L-BFGS. Its "
            f"loss should be level in the end{ends}; the gradients should fall by orders of magnitude, for at an "
            "optimum they are zero."
        ),
        drawn(figure, "The last part of the way of the best start."),
    ]
    if facts.estimator.method == "vi":
        parts.append(
            paragraph(
                "These are the steps to the most probable parameters, where the variational fit then began; its own "
                "steps are not kept."
            )
        )
    if fitted.restarts:
        parts += [
            paragraph(
                "What the starts said. When many end at the same loss, the optimum is likely the best there is:"
            ),
            Html(f"<pre>{escaped(fitted.restarts)}</pre>"),
        ]
    else:
        parts.append(paragraph("There was one start, so that nothing is known of other optima."))
    return parts
