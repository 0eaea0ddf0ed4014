"""The command line: one file for each command, options and output that commands share, and gin files."""
