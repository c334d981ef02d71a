"""Fitted estimators in files: options and names as JSON, numbers as arrays. Nothing in a file is executed.

A file says how the estimator was made, what it learned of its table, and its parameters. Reading one makes the
estimator anew from the options and rebuilds the design, so that every name and shape in the file is held against what
it must be; a file that was made up or damaged gives a `StorageError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import marginax.storage as storage
from marginax.mixture.estimator import Estimator
from marginax.mixture.families import Categorical
from marginax.mixture.family import Family
from marginax.mixture.file_checks import (
    check_columns,
    check_counts,
    check_densities,
    check_lengths,
    check_matrices,
    check_moments,
    check_options,
    check_priors,
)
from marginax.mixture.fitted import Fit
from marginax.mixture.gaussian_mixture import GaussianMixture
from marginax.mixture.hidden_markov import HiddenMarkov
from marginax.mixture.learned import check_cells, kept_of
from marginax.mixture.mixture_model import FAMILIES, MixtureModel
from marginax.mixture.priors import as_data, from_data, shape_of

KIND = "mixture"
VERSION = 1

ESTIMATORS: dict[str, type[Estimator]] = {
    "GaussianMixture": GaussianMixture,
    "MixtureModel": MixtureModel,
    "HiddenMarkov": HiddenMarkov,
}
_FAMILY_CLASSES = {type(family).__name__: type(family) for family in FAMILIES.values()}
_DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    jax.errors.JaxRuntimeError,  # as JAX says that there is no memory
)
LONGEST = 300
"""Of what is said about a file, which may have put long names into it."""


def save(path: str | os.PathLike[str], estimator: Estimator, table: Any = None) -> None:
    """Write a fitted estimator into a file.

    Parameters
    ----------
    path : path
        The file; what was there is replaced in one step.
    estimator : GaussianMixture, MixtureModel or HiddenMarkov
        Fitted.
    table : array or frame, shape (rows, columns), optional
        The table that it was fitted to, to be kept in the file (its cells can be read by whoever has it): reports
        show it, and the command ``marginax posterior`` goes on from it.

    Raises
    ------
    ValueError
        For a prior of a kind that a file cannot hold.
    sklearn.exceptions.NotFittedError

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from marginax.mixture import GaussianMixture, load, save
    >>> X = np.concatenate([np.arange(20.0), np.arange(50.0, 80.0)])[:, None]
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.mx"
    >>> save(path, GaussianMixture(2, random_state=0).fit(X), X)
    >>> load(path).predict([[10.0], [60.0]]).tolist()
    [1, 0]
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    kind = type(estimator).__name__
    if ESTIMATORS.get(kind) is not type(estimator):
        raise TypeError(f"save: it takes an estimator of marginax.mixture, not {kind}.")
    fitted = estimator.fit_
    options = dict(estimator.get_params(deep=False))
    options["priors"] = as_data(options["priors"])
    seed = options["random_state"]
    options["random_state"] = int(seed) if isinstance(seed, int | np.integer) else None
    if "components" in options:
        options["components"] = _components_as_data(options["components"], estimator)
    options = {name: _plain(value) for name, value in options.items()}
    check_options(options)
    about = {
        "kind": KIND,
        "version": VERSION,
        "estimator": kind,
        "options": options,
        "columns": list(estimator.column_names_),
        "named_columns": hasattr(estimator, "feature_names_in_"),
        "categories": {str(j): list(c) for j, c in estimator.categories_.items()},
        "rows": estimator.n_rows_,
        "lengths": estimator.lengths_,
        "chains": fitted.chains,
        "restarts": fitted.restarts,
        "relabelled": fitted.relabelled,
        "warnings": list(fitted.warnings),
    }
    arrays: dict[str, Any] = storage.prefixed("point:", fitted.point)
    arrays |= storage.prefixed("draws:", fitted.draws)
    arrays |= storage.prefixed("norms:", fitted.gradient_norms)
    arrays |= {"losses": fitted.losses}
    arrays |= {"column moments": estimator.learned_.moments, "fill": estimator.learned_.fill}
    if table is not None:
        arrays["table"] = estimator._read(table)
        if len(arrays["table"]) != estimator.n_rows_:
            raise ValueError(
                "save: the table has another number of rows than the one that was fitted."
            )
    storage.write(path, arrays, about)


def load(path: str | os.PathLike[str]) -> Any:
    """Read an estimator that `save` has written.

    Parameters
    ----------
    path : path
        The file; it may come from anyone, for nothing in it is executed.

    Returns
    -------
    GaussianMixture, MixtureModel or HiddenMarkov
        Fitted. If its table is in the file, that is its ``table_``: numbers, categories by theirs.

    Raises
    ------
    FileNotFoundError
    marginax.storage.StorageError
        When it is damaged, holds something else, or contradicts itself.
    """
    arrays, about = storage.read(path)
    name = os.fspath(path)
    if about.get("kind") != KIND:
        raise storage.StorageError(f"{name}: it holds {about.get('kind')!r}, not a fitted {KIND}.")
    version = about.get("version")
    if version != VERSION:
        raise storage.StorageError(
            f"{name}: it is of version {version!r}, and this Marginax reads version {VERSION}."
        )
    try:
        return _estimator(arrays, about)
    except _DAMAGE as error:
        raise storage.StorageError(
            f"{name}: it is damaged, or was not written by Marginax: {str(error)[:LONGEST]}"
        ) from error


def _estimator(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Estimator:
    point = storage.group("point:", arrays)
    options = dict(about["options"])
    check_options(options)
    check_priors(options["priors"], sum(value.size for value in point.values()))
    options["priors"] = from_data(options["priors"])
    if "components" in options:
        options["components"] = _components(options["components"])
    kind = ESTIMATORS[about["estimator"]]
    # Before anything of that size is made.
    check_columns(about["columns"])
    columns = tuple(about["columns"])
    check_counts(point, options["n_components"], kind._is_chain)
    moments = _numbers(arrays["column moments"], (2, len(columns)))
    fill = _numbers(arrays["fill"], (len(columns),))
    check_lengths(about["lengths"], about["rows"])
    check_moments(moments, fill, about["rows"])
    estimator = kind(**options)
    estimator._settings()  # are the options possible?
    groups = estimator._families(columns)
    check_matrices(point, groups)
    categories = {int(j): _categories(c) for j, c in about["categories"].items()}
    estimator.column_names_, estimator.categories_ = columns, categories
    estimator._learn(moments, fill)
    estimator.n_features_in_ = len(columns)
    if about["named_columns"] is True:
        estimator.feature_names_in_ = np.asarray(columns, object)
    design = estimator.learned_.design
    categorical = {j for g in design.groups if isinstance(g.family, Categorical) for j in g.where}
    if categories.keys() != categorical:
        raise ValueError(f"it has categories of the columns {sorted(categories)}.")
    _check_table(fill[None], groups, columns, categories)
    estimator.fit_ = _fit(arrays, about, estimator)
    estimator.n_rows_ = about["rows"]
    estimator.lengths_ = None if about["lengths"] is None else tuple(about["lengths"])
    estimator.n_iter_ = len(estimator.fit_.losses)
    estimator.warnings_ = estimator.fit_.warnings
    if "table" in arrays:
        table = arrays["table"]
        if table.shape != (estimator.n_rows_, len(columns)) or table.dtype != np.float64:
            raise ValueError(
                f"its table has shape {table.shape}, of {estimator.n_rows_} rows and {len(columns)} columns."
            )
        _check_table(table, groups, columns, categories)
        kept_of(table, columns)  # are its numbers such as can be computed with?
        estimator.table_ = table
    return estimator


def _fit(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], estimator: Estimator) -> Fit:
    design = estimator.learned_.design
    shapes = {
        site: shape if outer else (estimator.n_components, *shape)
        for site, shape, outer in (
            (s, shape_of(p.prior), p.is_shared or s in design.outer)
            for s, p in design.priors.items()
        )
    }
    point = _values(storage.group("point:", arrays), shapes, ())
    drawn = storage.group("draws:", arrays)
    if not drawn:
        raise ValueError("it has no draws.")
    count = len(next(iter(drawn.values())))
    draws = _values(drawn, shapes, (count,))
    chains = about["chains"]
    if type(chains) is not int or chains < 1 or count < 1 or count % chains:
        raise ValueError(f"its number of chains is {chains!r}, of {count} draws.")
    for site, value in point.items():
        support = design.priors[site].prior.support
        for values in (value, draws[site]):
            if not np.all(np.asarray(support(values))):
                raise ValueError(f"its parameter {site!r} has values that are none.")
    everything = {name: np.concatenate([point[name][None], draws[name]]) for name in point}
    check_densities(estimator.learned_, everything)
    texts = (about["restarts"], about["relabelled"], *about["warnings"])
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("its remarks are no texts.")
    losses = _numbers(arrays["losses"], arrays["losses"].shape[:1])
    norms = {n: _numbers(v, losses.shape) for n, v in storage.group("norms:", arrays).items()}
    if not norms.keys() <= shapes.keys():
        raise ValueError("it has gradient norms of what is no parameter.")
    return Fit(point, draws, losses, norms, texts[0], chains, tuple(texts[2:]), texts[1])


def _check_table(
    table: np.ndarray, groups: Any, columns: Sequence[str], categories: Mapping[int, Any]
) -> None:
    check_cells(table, groups, columns)
    for j, known in categories.items():
        if (table[:, j] >= len(known)).any():
            raise ValueError(f"it has a category of column {j} that there is not.")


def _categories(given: Any) -> tuple[Any, ...]:
    known = {(isinstance(c, bool), c) for c in given if isinstance(c, str | int | float) and c == c}
    if not isinstance(given, list) or not given or len(known) != len(given):
        raise ValueError("its categories are not different words, numbers or truth values.")
    return tuple(given)


def _values(
    given: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], leading: tuple[int, ...]
) -> dict[str, np.ndarray]:
    if given.keys() != shapes.keys():
        raise ValueError(f"its parameters are {sorted(given)}, and should be {sorted(shapes)}.")
    return {name: _numbers(given[name], (*leading, *shape)) for name, shape in shapes.items()}


def _numbers(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
        raise ValueError(
            f"an array of {array.dtype}, shape {array.shape}, should be finite numbers of float64, shape {shape}."
        )
    return array


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _components_as_data(components: Any, estimator: Estimator) -> Any:
    if isinstance(components, str):
        return components
    if isinstance(components, Family):
        return _family_as_data(components)
    groups = estimator.learned_.design.groups
    return [[g.name, _family_as_data(g.family), list(g.where)] for g in groups]


def _family_as_data(family: Family) -> dict[str, Any]:
    kind = type(family).__name__
    if _FAMILY_CLASSES.get(kind) is not type(family):
        raise ValueError(f"save: the family {kind} is not one of marginax.mixture.")
    return {"family": kind, "options": family.options()}


def _components(data: Any) -> Any:
    if isinstance(data, str):
        return data
    if isinstance(data, dict):
        return _family(data)
    return [(name, _family(family), list(where)) for name, family, where in data]


def _family(data: Mapping[str, Any]) -> Family:
    options = dict(data["options"])
    if not all(isinstance(value, bool) for value in options.values()):
        raise TypeError(f"its family {data!r} has options that are none.")
    return _FAMILY_CLASSES[data["family"]](**options)
