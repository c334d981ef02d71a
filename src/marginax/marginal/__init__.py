"""`marginalize`: a model made ready, what can be asked of it, and the compiled answers."""
