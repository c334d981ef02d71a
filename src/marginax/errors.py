"""The one exception of the language: a mistake in a model, told with the site's name."""

from __future__ import annotations

from copy import copy
from typing import Self


class ModelError(ValueError):
    """A model, its data or its parameters cannot mean what was written.

    The message names the site, says the cause and says what to write instead; programs find these apart in the
    attributes. It is a `ValueError`, so code that catches those keeps working.

    Parameters
    ----------
    cause : str
        What is wrong, as a sentence that follows the site's name, if there is one.
    site : str, optional
        The name of the site at which it is.
    kind : str
        What kind of site it is: "site" for a random variable or a factor, "param" or "plate".
    advice : str
        What to write instead, in sentences; empty where it is plain from the cause.

    Examples
    --------
    >>> error = ModelError("its scale is -1.0, which is not positive.", site="x", advice="Take its exponential.")
    >>> print(error)
    site 'x': its scale is -1.0, which is not positive. Take its exponential.
    >>> error.site, error.advice
    ('x', 'Take its exponential.')
    """

    def __init__(
        self, cause: str, *, site: str | None = None, kind: str = "site", advice: str = ""
    ) -> None:
        where = "" if site is None else f"{kind} '{site}': "
        super().__init__(f"{where}{cause}{' ' if advice else ''}{advice}")
        self.cause = cause
        self.site = site
        self.kind = kind
        self.advice = advice

    def found(self, where: str) -> Self:
        """The same error, whose message begins with where it was found."""
        other = copy(self)
        other.args = (f"{where}: {self}",)
        return other


class NotKnownError(ModelError):
    """A number is needed, a plate's size say, where there is a traced value."""
