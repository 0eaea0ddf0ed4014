"""`prepare`: text sources to token stores."""
