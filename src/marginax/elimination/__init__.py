"""Sum-product elimination on factors with named axes. Knows nothing of models or distributions."""
