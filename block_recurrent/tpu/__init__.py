"""Compiling for TPU slices that are not there: what fits, how long a step may take, what the compiler needs."""
