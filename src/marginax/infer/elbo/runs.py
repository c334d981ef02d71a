"""Running a guide and its model together: what is traced, and what is drawn.

Both stand under a seed, and values are substituted outside of it. So the seed spends a key on every
site, whether it has a value or not, and all runs draw the same: the one that draws discrete sites, and
the one that is traced with their values as inputs, which draws the continuous ones again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from marginax.density.validate import numpyro_checks
from marginax.graph.known_data import with_data_known
from marginax.graph.log_density import LogDensity, density_trace
from marginax.graph.same_sites import refuse_changes, seen_of
from marginax.graph.sites import seen_in
from marginax.infer.elbo.mean_field import divergences
from marginax.infer.elbo.pairing import Pairing
from marginax.language import handlers
from marginax.language.stack import Message, isolated

IN_GUIDE = " (in the guide)"
CHOSEN = " (chosen by the guide)"
DIVERGENCE = " (divergence)"


@dataclass(frozen=True)
class Run:
    """A guide and its model, both under a seed, on one path of the guide."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: Any
    kwargs: Any
    pairing: Pairing

    def guide_with(self, values: Mapping[str, Any]) -> Callable[..., Any]:
        """The guide with values for some of its sites."""
        return handlers.substitute(self.guide, data={**self.pairing.chosen, **values})

    def traces(
        self, in_guide: Mapping[str, Any], in_model: Mapping[str, Any]
    ) -> tuple[handlers.Trace, handlers.Trace]:
        """The guide, and the model replayed on it, with log densities."""

        def run() -> tuple[handlers.Trace, handlers.Trace]:
            guide_run = density_trace(self.guide_with(in_guide))
            guide_trace = guide_run.get_trace(*self.args, **self.kwargs)
            model = handlers.substitute(self.model, data=in_model)
            model_run = density_trace(handlers.replay(model, trace=guide_trace))
            return guide_trace, model_run.get_trace(*self.args, **self.kwargs)

        with isolated(), numpyro_checks(False):  # the pairing has checked
            guide_trace, model_trace = with_data_known(run)
        refuse_changes(seen_in(self.pairing.in_guide), seen_of(guide_trace))
        refuse_changes(seen_in(self.pairing.in_model), seen_of(model_trace))
        return guide_trace, model_trace

    def draw(self) -> dict[str, Any]:
        """Values of the drawn sites."""
        if not self.pairing.drawn:
            return {}
        with isolated(), numpyro_checks(False):
            drawing = handlers.trace(self.guide_with({}))
            trace = with_data_known(lambda: drawing.get_trace(*self.args, **self.kwargs))
        return {name: jax.lax.stop_gradient(trace[name]["value"]) for name in self.pairing.drawn}


def densities(run: Run, values: Mapping[str, Any], analytic: bool) -> dict[str, LogDensity]:
    """The log densities that the bound is made of, by name: what is traced into a factor graph.

    Parameters
    ----------
    run : Run
        The guide's path, and the model on it.
    values : mapping of arrays
        Of the discrete variables that are summed out or drawn.
    analytic : bool
        Whether divergences that have a formula are among them.
    """
    pairing = run.pairing
    in_model = {name: value for name, value in values.items() if name in pairing.eliminated}
    in_guide = {name: value for name, value in values.items() if name not in in_model}
    guide_trace, model_trace = run.traces(in_guide, in_model)
    found = {name: m["density"] for name, m in model_trace.items() if m["type"] == "sample"}
    for name, msg in guide_trace.items():
        if msg["type"] == "sample":
            found[name + IN_GUIDE] = replace(msg["density"], site=name)
    for name in pairing.counts:
        found[name + CHOSEN] = _log_chance(guide_trace[name])
    if analytic:
        names = [*pairing.reparameterised, *pairing.drawn]
        for name, density in divergences(guide_trace, model_trace, names).items():
            found[name + DIVERGENCE] = density
    return found


def _log_chance(msg: Message) -> LogDensity:
    """The log probability of a sequential site's value, also where a mask switches it off."""
    density = msg["density"]
    array = density.array if density.unmasked is None else density.unmasked
    return LogDensity(array, density.plates, is_discrete=True)
