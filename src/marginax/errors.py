"""The one exception of the language: a mistake in a model, told with the site's name."""

from __future__ import annotations


class ModelError(ValueError):
    """A model, its data or its parameters cannot mean what was written.

    The message names the site, says the cause and says what to write instead.
    It is a `ValueError`, so code that catches those keeps working.
    """


class NotKnownError(ModelError):
    """A number is needed, a plate's size say, where there is a traced value."""
