"""Programs that take turns under `experiments.benchmarks.turns`; each measures one task in a process of its own."""
