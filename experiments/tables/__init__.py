"""The paper's tables: trains and evaluates their rows."""
