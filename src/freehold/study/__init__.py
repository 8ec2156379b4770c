"""Study: what a model is, read from its own files; its license, its declared bases, what to know before using it.

It reads and never changes, runs nothing of what it reads, and takes files as byte sources from wherever they are.
"""
