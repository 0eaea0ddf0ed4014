"""Single studies."""
