"""freehold: keep, use, study, modify and distribute the open models you depend on, even when their source goes away."""

__version__ = "0.1.0"
