"""The log density of one site: formulas, parameters, supports, and what is checked of them."""
