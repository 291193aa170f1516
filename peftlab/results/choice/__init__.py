"""Which method to use: the needs, the records nearest to them, and the rule."""
