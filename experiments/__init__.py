"""Experiments and benchmarks; each subfolder is a package of scripts, run with `python -m`."""
