"""Formats: parse and write what models and their histories are made of; no I/O beyond the sources that are handed in."""
