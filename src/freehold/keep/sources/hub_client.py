"""Asking a hub: URLs, the token, and what its refusals mean.

One place knows how the various hubs say no (status, X-Error-Code, and that a missing model is a 401 to the anonymous), so
that the source above it reads as a story. Failures of the network become `keep-hub-unreachable` with the reason; those that
are this machine's own rules (a refused address, local only) keep their codes. It does not read listings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from freehold.errors import FreeholdError
from freehold.net.egress import Egress, Response
from freehold.net.urls import Target, parse_url
from freehold.nouns.ids import RepoId

#: Largest JSON answer that is read, in bytes.
MAX_JSON = 64 << 20
_AWAY = frozenset({"net-unreachable", "net-timeout", "net-cut"})
_PRINTABLE = re.compile(r"[^\x20-\x7e]+")
_LINK = re.compile(r'<([^>]+)>\s*;[^,]*\brel="?next"?')


class HubClient:
    """One hub, asked with one token (or none). The endpoint's host is trusted, since the operator named it."""

    def __init__(self, egress: Egress, endpoint: str, token: str | None) -> None:
        """FreeholdError net-url-invalid, keep-token-invalid."""
        target = parse_url(endpoint)
        self.endpoint = target.url.rstrip("/")
        self.host = target.place
        self.origin = target.origin
        self.has_token = bool(token)
        self._egress = egress
        self._trusted = frozenset({target.place})
        if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
            raise FreeholdError("keep-token-invalid", f"the token for {self.host} holds characters that no token has")
        self._authorization = {"Authorization": f"Bearer {token}"} if token else {}
        if target.authorization and not token:
            self._authorization = {"Authorization": target.authorization}

    def api(self, repo: RepoId, *path: str, query: str = "") -> str:
        """The URL of an API route; each of `path` is one segment and is quoted as such."""
        tail = "".join("/" + quote(part, safe="") for part in path)
        return f"{self.endpoint}/api/models/{repo}{tail}" + (f"?{query}" if query else "")

    def file(self, repo: RepoId, commit: str, path: str) -> str:
        return f"{self.endpoint}/{repo}/resolve/{commit}/{quote(path, safe='/')}"

    def open(self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Response:
        """The answer whatever its status; the token goes to the endpoint's origin only.

        FreeholdError keep-hub-unreachable, net-*."""
        sent = dict(headers or {})
        if parse_url(url).origin == self.origin:
            sent |= self._authorization
        try:
            return self._egress.open(method, url, headers=sent, trusted_hosts=self._trusted)
        except FreeholdError as error:
            raise self.away(error) from error

    def json(self, url: str, what: str) -> tuple[Any, Target | None]:
        """The body as JSON and where the next page lies. FreeholdError keep-hub-invalid if it is none, and those of `refuse`."""
        with self.open(url, headers={"Accept": "application/json"}) as answer:
            if answer.status != 200:
                raise self.refusal(answer, what)
            try:
                body = json.loads(answer.read(MAX_JSON))
            except (ValueError, RecursionError) as error:
                raise FreeholdError(
                    "keep-hub-invalid", f"{self.host} did not answer with JSON for {what}", url=answer.url
                ) from error
            except FreeholdError as error:
                raise self.away(error) from error
            return body, self._next(answer)

    def _next(self, answer: Response) -> Target | None:
        match = _LINK.search(answer.headers.get("Link") or "")
        if match is None:
            return None
        following = parse_url(match[1]) if "://" in match[1] else parse_url(self.endpoint + match[1])
        if following.origin != self.origin:
            message = f"{self.host} continues its listing on another host ({following.place})"
            raise FreeholdError("keep-hub-invalid", message, url=str(following))
        return following

    def away(self, error: FreeholdError) -> FreeholdError:
        """A failure of the network as keep-hub-unreachable; any other unchanged."""
        if error.code not in _AWAY:
            return error
        message = f"the hub {self.host} cannot be used: {error.message}"
        return FreeholdError("keep-hub-unreachable", message, endpoint=self.endpoint, reason=error.code)

    def refusal(self, answer: Response, what: str) -> FreeholdError:
        """What an answer that is no success says of `what`."""
        code = answer.headers.get("X-Error-Code") or ""
        said = _PRINTABLE.sub(" ", answer.headers.get("X-Error-Message") or "")[:200]
        status = answer.status
        context: dict[str, Any] = {"endpoint": self.endpoint, "status": status, "said": said}
        if code == "RevisionNotFound":
            return FreeholdError("keep-revision-not-found", f"{self.host} has no such revision: {what}", **context)
        if code == "EntryNotFound":
            return FreeholdError("keep-file-gone", f"{self.host} lists a file that it does not have: {what}", **context)
        if code == "GatedRepo":
            return FreeholdError("keep-gated", f"{self.host} gives {what} only to those who accepted its terms", **context)
        if code == "DisabledRepo" or status in (410, 451):
            return FreeholdError("keep-withdrawn", f"{self.host} has withdrawn {what}", **context)
        if status == 401 and self.has_token and code != "RepoNotFound":
            return FreeholdError("keep-token-refused", f"{self.host} refused the token", **context)
        if code == "RepoNotFound" or status in (401, 404):
            return FreeholdError("keep-repo-not-found", f"{self.host} has no {what}, or not for this caller", **context)
        if status == 403:
            return FreeholdError("keep-forbidden", f"{self.host} refuses {what}" + (f": {said}" if said else ""), **context)
        if status == 429:
            wait = answer.headers.get("Retry-After")
            return FreeholdError(
                "keep-rate-limited", f"{self.host} asks to be left alone for a while", **context, retry_after=wait
            )
        if status >= 500:
            return FreeholdError("keep-hub-unreachable", f"the hub {self.host} failed with status {status} at {what}", **context)
        return FreeholdError("keep-hub-invalid", f"{self.host} answered {status} for {what}", **context)
