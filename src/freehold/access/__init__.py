"""Who may: principals, keys and the Caller that every flow takes."""

from freehold.access.keys import KeyRow, NewKey, create_key, identify, list_keys, needs_touch, revoke_key, touch_key

__all__ = ["KeyRow", "NewKey", "create_key", "identify", "list_keys", "needs_touch", "revoke_key", "touch_key"]
