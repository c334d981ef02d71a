"""Recording: which statements a model makes."""

from __future__ import annotations

from typing import Any

from marginax.errors import ModelError
from marginax.language.stack import Message, Messenger

Trace = dict[str, Message]


class trace(Messenger):
    """Record every site.

    Examples
    --------
    >>> import marginax as mx
    >>> import marginax.distributions as dist
    >>> def model():
    ...     return mx.sample("x", dist.Normal(0.0, 1.0))
    >>> tr = mx.handlers.trace(mx.handlers.seed(model, rng_seed=0)).get_trace()
    >>> tr["x"]["type"]
    'sample'
    """

    def __enter__(self) -> Trace:
        super().__enter__()
        self.trace: Trace = {}
        return self.trace

    def postprocess_message(self, msg: Message) -> None:
        name = msg.get("name")
        if name is None:
            return
        earlier = self.trace.get(name)
        if earlier is not None and earlier["type"] != msg["type"]:
            raise ModelError(
                f"the name '{name}' is used for a {earlier['type']} site and for a {msg['type']} "
                "site; rename one of them."
            )
        if earlier is not None and msg["type"] in ("sample", "deterministic"):
            raise ModelError(
                "it is stated twice; give every sample, factor and deterministic site of the model a name of its "
                "own (in a loop: f'{name}_{i}').",
                site=name,
            )
        if earlier is not None and msg["type"] == "plate" and _are_drawn_apart(earlier, msg):
            raise ModelError(
                f"plate '{name}' is subsampled twice, with different elements each time, so what stands in it "
                "would not belong together.",
                advice=f"Make it once, p = plate('{name}', ...), and write `with p:` each time.",
            )
        self.trace[name] = msg.copy()

    def get_trace(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the function and return its sites by name, in the order of the run."""
        self(*args, **kwargs)
        return self.trace

    def differing(self, msg: Message) -> dict[str, Any]:
        """What of a site stated in a scan is kept for every step: arrays, or trees of them, by key of the message."""
        kept = {key: msg[key] for key in ("value", "beside") if key in msg}
        return kept | {"fn": msg["fn"]} if msg["type"] == "sample" else kept


def _are_drawn_apart(*plates: Message) -> bool:
    """Whether a plate's elements are drawn a second time; other sizes are refused elsewhere."""
    drawn = any(msg["kwargs"].get("rng_key") is not None for msg in plates)
    return drawn and plates[0]["args"] == plates[1]["args"]
