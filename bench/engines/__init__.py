"""The same job for other engines; each runs by itself in an environment that has the engine."""
