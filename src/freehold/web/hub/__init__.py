"""The Hugging Face Hub API, reading: stock clients need HF_ENDPOINT and nothing else.

Routes translate only: URL to values (`urls`), values to the API's JSON (`answers`), failures to its headers (`errors`);
what may be read is decided by flows.read_file. Being exact is the point, since clients act on headers that people never see.
"""

from freehold.web.hub.app import ROUTES, hub

__all__ = ["ROUTES", "hub"]
