"""Models written in NumPyro."""

from marginax.numpyro_models.bridge import from_numpyro as from_numpyro
