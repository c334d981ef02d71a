"""The stack: how a message travels, and that whatever happens leaves it clean."""

import threading
from collections.abc import Callable
from typing import Any

import jax
import pytest

import marginax as mx
import marginax.distributions as dist
from marginax.language.stack import is_active, isolated


class Listener(mx.handlers.Messenger):
    """Writes down, in a list that listeners share, which of them a message passes."""

    def __init__(self, name: str, heard: list[str], fn: Callable[..., Any] | None = None) -> None:
        super().__init__(fn)
        self.name, self.heard = name, heard

    def process_message(self, msg: dict[str, Any]) -> None:
        self.heard.append(f"{self.name} down")

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        self.heard.append(f"{self.name} up")


def one_site() -> Any:
    return mx.sample("x", dist.Normal(0.0, 1.0))


def test_a_message_goes_outwards_and_its_result_comes_back_inwards():
    heard: list[str] = []
    with mx.handlers.seed(rng_seed=0), Listener("outer", heard), Listener("inner", heard):
        one_site()
    assert heard == ["inner down", "outer down", "outer up", "inner up"]


def test_a_stopped_message_is_not_heard_outside():
    heard: list[str] = []
    with (
        Listener("outer", heard),
        mx.handlers.block(),
        Listener("inner", heard),
        mx.handlers.seed(rng_seed=0),
    ):
        one_site()
    assert heard == ["inner down", "inner up"]


def test_every_message_has_a_type_and_a_name_so_that_a_handler_may_ask_for_them():
    said = []

    class Reader(mx.handlers.Messenger):
        def process_message(self, msg: dict[str, Any]) -> None:
            said.append((msg["type"], msg["name"]))

    with Reader(), mx.handlers.seed(rng_seed=0), mx.plate("n", 2):
        one_site()
        mx.param("p", 0.0)
        mx.deterministic("d", 0.0)
        mx.factor("f", 0.0)
        mx.subsample(jax.numpy.zeros(2), event_dim=0)
        mx.prng_key()
    assert said == [
        ("plate", "n"),
        ("sample", "x"),
        ("param", "p"),
        ("deterministic", "d"),
        ("sample", "f"),
        ("subsample", None),
        ("prng_key", None),
    ]


def test_a_handler_is_a_wrapper_a_context_manager_and_a_decorator_with_the_same_meaning():
    wrapped = mx.handlers.seed(one_site, rng_seed=7)()
    with mx.handlers.seed(rng_seed=7):
        entered = one_site()

    @mx.handlers.seed(rng_seed=7)
    def decorated() -> Any:
        return one_site()

    assert wrapped == entered == decorated()


def test_a_wrapped_function_keeps_its_name_and_documentation():
    def model() -> None:
        """A model of nothing."""

    seeded = mx.handlers.seed(model, rng_seed=0)
    assert (seeded.__name__, seeded.__doc__) == ("model", "A model of nothing.")  # pyright: ignore


def test_arguments_and_the_result_pass_through_the_handlers_unchanged():
    def model(a: int, *, b: int) -> tuple[int, int]:
        return a, b

    assert mx.handlers.block(mx.handlers.seed(model, rng_seed=0))(1, b=2) == (1, 2)


def test_wrapping_something_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="block: the first argument must be a function"):
        mx.handlers.block(["x"])  # pyright: ignore


def test_a_handler_made_without_a_function_refuses_to_be_called_with_data():
    with pytest.raises(TypeError, match="seed was made without a function"):
        mx.handlers.seed(rng_seed=0)(1.0)


def test_an_exception_in_nested_handlers_leaves_the_stack_empty():
    def failing() -> None:
        with mx.handlers.trace(), mx.plate("n", 3), mx.handlers.scale(scale=2.0):
            raise KeyError("the model's own mistake")

    with pytest.raises(KeyError, match="own mistake"):
        mx.handlers.block(mx.handlers.seed(failing, rng_seed=0))()
    assert not is_active()


def test_an_exception_inside_a_handler_leaves_the_handlers_outside_of_it_at_work():
    with mx.handlers.seed(rng_seed=0), mx.handlers.trace() as tr:
        with pytest.raises(mx.ModelError), mx.plate("n", 3), mx.plate("n", 3):
            one_site()
        one_site()
    assert tr["x"]["cond_indep_stack"] == []
    assert not is_active()


def test_a_failing_model_can_be_run_again():
    def model(n: int) -> Any:
        with mx.plate("n", 2):
            return mx.sample("x", dist.Normal(0.0, 1.0), obs=jax.numpy.zeros(n))

    seeded = mx.handlers.seed(model, rng_seed=0)
    with pytest.raises(mx.ModelError):
        seeded(3)
    assert seeded(2).shape == (2,)


def test_leaving_a_handler_that_an_outer_one_took_along_does_not_empty_the_stack():
    outer, inner = mx.handlers.block(), mx.handlers.mask(mask=False)
    with mx.handlers.trace() as tr, mx.handlers.seed(rng_seed=0):
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        one_site()
    assert list(tr) == ["x"]


def test_each_thread_has_a_stack_of_its_own():
    seen: dict[str, bool] = {}
    entered, checked = threading.Event(), threading.Event()

    def other_thread() -> None:
        entered.wait(timeout=60)
        seen["active in the other thread"] = is_active()
        checked.set()

    thread = threading.Thread(target=other_thread)
    thread.start()
    with mx.handlers.seed(rng_seed=0):
        entered.set()
        checked.wait(timeout=60)
    thread.join()
    assert seen == {"active in the other thread": False}


def test_one_seeded_model_may_run_in_many_threads_at_once():
    both_inside = threading.Barrier(2, timeout=60)

    def model() -> tuple[Any, Any]:
        first = one_site()
        both_inside.wait()
        return first, mx.sample("y", dist.Normal(0.0, 1.0))

    seeded, results = mx.handlers.seed(model, rng_seed=0), []
    threads = [threading.Thread(target=lambda: results.append(seeded())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert results[0][0] != results[0][1]


def test_an_isolated_run_neither_hears_nor_is_heard_by_the_handlers_outside():
    with mx.handlers.trace() as outside, mx.handlers.seed(rng_seed=0):
        with isolated(), mx.handlers.seed(rng_seed=1):
            one_site()
        mx.sample("y", dist.Normal(0.0, 1.0))
    assert list(outside) == ["y"]
