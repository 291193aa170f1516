"""Trained in one language, tested in others: scores, retention, and what a language costs."""
