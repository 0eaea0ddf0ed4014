"""Ahead-of-time compilation for TPU slices that are not attached."""
