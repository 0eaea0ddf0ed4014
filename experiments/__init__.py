"""Experiments and benchmarks: packages of scripts that run with `python -m`."""
