"""What is known of a traced function, of a model or not: how axes flow, what depends on what, compiled programs."""
