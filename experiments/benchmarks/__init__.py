"""Benchmarks against stated bounds."""
