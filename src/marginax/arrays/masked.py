"""Masked arrays of NumPy: what is under a mask is no datum, and JAX would take it for one."""

from __future__ import annotations

from typing import Any

import numpy as np

from marginax.errors import ModelError


def refuse_masked(what: str, value: Any) -> None:
    """Raise a ModelError for an array with masked elements, or a list that has some.

    Parameters
    ----------
    what : str
        Where it was given, for the message.
    value : Any
        What was given. A masked array of which no element is masked is an array.
    """
    if isinstance(value, list | tuple):
        for element in value:
            refuse_masked(what, element)
    if not isinstance(value, np.ma.MaskedArray):
        return
    mask = np.ma.getmaskarray(value)
    if mask.dtype.names is not None or mask.any():
        raise ModelError(
            f"{what} is a masked array with {int(np.sum(mask)) if mask.dtype == bool else 'some'} of "
            f"{value.size} elements masked, and the numbers under the mask would be taken for data.",
            advice=(
                "Give it without its mask, and say to the site which elements there are: obs=array.filled(0.0), "
                "with any number in the support, and obs_mask=~np.ma.getmaskarray(array)."
            ),
        )
