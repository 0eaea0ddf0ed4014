"""The paper's tables, as data, and their reproduction by runs."""
