"""The one way out: what may be reached, by whom it was allowed, and what was reached."""
