"""Pure functions of arrays, without parameters and without Flax."""
