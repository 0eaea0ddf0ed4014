"""`prepare`: token stores from text sources."""
