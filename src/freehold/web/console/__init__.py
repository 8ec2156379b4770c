"""The console: the house as pages for people, server-rendered, under `/-/` on the one port.

Why server-rendered: what can be read needs no script, no build and no second program. It is a door: it asks flows and
renders their answers, and knows neither databases nor bytes.
"""

from freehold.web.console.routes import routes

__all__ = ["routes"]
