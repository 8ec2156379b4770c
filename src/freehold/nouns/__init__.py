"""The words of the house as frozen values without I/O; `parse` and `str` are inverse to one another."""
