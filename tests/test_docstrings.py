"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import marginax as mx

MODULES = [
    module.name
    for module in pkgutil.walk_packages(mx.__path__, "marginax.")
    if not module.name.endswith("__main__")
]


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [mx, *map(importlib.import_module, MODULES)]
    return [test for module in modules for test in finder.find(module) if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_prints_what_it_says(example: doctest.DocTest):
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert not report, "".join(report)


def test_names_are_those_of_users_and_all_are_there():
    modules = {name for name in dir(mx) if inspect.ismodule(getattr(mx, name))}
    assert modules == {"distributions", "handlers", "infer", "mixture", "optim", "testing"}
    assert set(mx.__all__) <= set(dir(mx))
    with pytest.raises(AttributeError, match="'marginalise'"):
        getattr(mx, "marginalise")  # noqa: B009, a name that is not there
