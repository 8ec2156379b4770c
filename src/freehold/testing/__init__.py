"""Conformance suites and fakes, shipped: whoever writes another implementation of an interface runs the same checks."""
