"""The paper's comparison at a size that a laptop trains."""
