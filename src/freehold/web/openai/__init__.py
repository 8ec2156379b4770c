"""The OpenAI API under `/v1`: models, chat completions, completions, as the stock clients expect them to the byte.

A door: it parses, calls flows and renders; numbers, prices and permissions are theirs.
"""

from freehold.web.openai.routes import routes

__all__ = ["routes"]
