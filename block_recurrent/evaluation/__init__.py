"""Evaluation of trained models: exact scores, confidence intervals, state ablations, diagnostics, comparisons."""
