"""Keeping: where models come from (`sources`), the work of taking one in (`claim`), and what a kept revision is (`record`).

It fetches and describes; it judges nothing and moves no ref: that is for a flow, which joins it with study and catalog.
"""
