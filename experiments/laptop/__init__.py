"""The paper's comparison with models small enough for a laptop."""
