"""Several guides as one, each for some of the model's sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from marginax.errors import ModelError
from marginax.infer.autoguide.base import AutoGuide
from marginax.language import handlers
from marginax.language.handlers.seeding import as_key
from marginax.language.stack import Message, Messenger


class AutoGuideList(AutoGuide):
    """Guides for parts of a model, one after the other.

    Each part states other sites: an automatic guide of the model under
    ``handlers.block(model, expose=[...])`` or ``hide=[...]``, or a function of the model's arguments written
    by hand. A subsampled plate has the same elements in all of them.

    Parameters
    ----------
    model : callable
        The model.
    prefix : str
        Not used by the list itself; each part has its own.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> from marginax.infer.autoguide import AutoDelta, AutoGuideList, AutoNormal
    >>> def model():
    ...     scale = mx.sample("scale", dist.HalfNormal(1.0))
    ...     mx.sample("x", dist.Normal(0.0, scale))
    >>> guide = AutoGuideList(model)
    >>> guide.append(AutoDelta(mx.handlers.block(model, expose=["scale"])))
    >>> guide.append(AutoNormal(mx.handlers.block(model, hide=["scale"])))
    >>> list(mx.handlers.seed(guide, rng_seed=0)())
    ['scale', 'x']
    """

    def __init__(self, model: Callable[..., Any], *, prefix: str = "auto") -> None:
        super().__init__(model, prefix=prefix)
        self._parts: list[Callable[..., Any]] = []

    def append(self, part: Callable[..., Any]) -> None:
        """Add a guide for some of the sites.

        Parameters
        ----------
        part : AutoGuide or callable
            The guide; a function gets the model's arguments.

        Raises
        ------
        TypeError
            When it is not a function.
        """
        if not callable(part) or isinstance(part, type):
            raise TypeError(
                f"AutoGuideList.append: a part is an automatic guide or a function, not {part!r}."
            )
        self._parts.append(part)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> Callable[..., Any]:
        return self._parts[index]

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self._parts)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        plates: dict[str, Any] = {}
        stated: dict[str, str] = {}
        for part in self:
            after = _AfterOthers(plates, stated, self._described(part))
            with after, handlers.trace() as trace:
                part(*args, **kwargs)
            for name, msg in trace.items():
                if msg["type"] == "plate":
                    plates.setdefault(name, msg["value"])
                elif msg["type"] == "sample" and not msg["is_observed"]:
                    stated[name] = after.part
                    if not msg["infer"].get("is_auxiliary"):
                        values[name] = msg["value"]
        return values

    def _described(self, part: Callable[..., Any]) -> str:
        name = type(part).__name__ if isinstance(part, AutoGuide) else getattr(part, "__name__", "")
        return f"part {self._parts.index(part)} ({name})"

    def _automatic(self) -> list[Any]:
        """The parts, which must all be automatic guides to be asked."""
        for part in self:
            if not isinstance(part, AutoGuide):
                raise TypeError(
                    f"AutoGuideList: {self._described(part)} is a function written by hand, which can be run but "
                    "not asked for medians, quantiles or draws. Ask the other parts (guide[0]), or draw "
                    "with Predictive(guide, params=params, num_samples=1000)."
                )
        return list(self._parts)

    def median(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _joined(part.median(params, *args, **kwargs) for part in self._automatic())

    def quantiles(
        self, params: Mapping[str, Any], quantiles: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        parts = self._automatic()
        return _joined(part.quantiles(params, quantiles, *args, **kwargs) for part in parts)

    def get_posterior(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> list[Any]:
        """What each part says is the posterior, in the order of the parts.

        Parameters
        ----------
        params : mapping
            The parameters by name: the result's ``params``.
        *args, **kwargs
            The model's arguments; only needed by a guide that has not run.
        """
        return [part.get_posterior(params, *args, **kwargs) for part in self._automatic()]

    def sample_posterior(
        self,
        rng_key: Any,
        params: Mapping[str, Any],
        *args: Any,
        sample_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> dict[str, Any]:
        parts = self._automatic()
        keys = jax.random.split(as_key(rng_key), len(parts))
        return _joined(
            part.sample_posterior(key, params, *args, sample_shape=sample_shape, **kwargs)
            for key, part in zip(keys, parts, strict=True)
        )


class _AfterOthers(Messenger):
    """Around a part, what earlier parts have settled.

    A plate that one of them made has the same elements, and is not announced again; a site that one
    of them stated is refused.
    """

    def __init__(self, plates: Mapping[str, Any], stated: Mapping[str, str], part: str) -> None:
        super().__init__(None)
        self.plates = plates
        self.stated = stated
        self.part = part

    def process_message(self, msg: Message) -> None:
        name = msg["name"]
        if msg["type"] == "plate" and name in self.plates:
            msg.update(value=self.plates[name], stop=True)
        if msg["type"] == "sample" and name in self.stated:
            hint = (
                "give the second another prefix="
                if msg["infer"].get("is_auxiliary")
                else "make each part over handlers.block(model, expose=[...]) with sites of its own"
            )
            raise ModelError(
                f"it is stated by two parts of an AutoGuideList, {self.stated[name]} and {self.part}; {hint}.",
                site=name,
            )


def _joined(parts: Any) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}
