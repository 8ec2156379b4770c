"""Telling a running upstream what to do, from another process: the control door's client, and how it is found.

An upstream that is started from the command line leaves word in its folder (`.lab/control.json`, readable by its owner
only), so that a person names the folder and no port or token. It imports no server.
"""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from freehold.errors import FreeholdError
from freehold.lab.history import LAB
from freehold.lab.verbs import checked

_SECONDS = 30.0


def tell(control_url: str, token: str, verb: str, values: dict[str, Any]) -> dict[str, Any]:
    """Have an upstream obey; FreeholdError lab-control-unreachable, or what it answered."""
    return _call("POST", control_url, token, verb, checked(verb, values)[1])


def ask(control_url: str, token: str, what: str) -> dict[str, Any]:
    """`what` is state or requests; FreeholdError as for `tell`."""
    return _call("GET", control_url, token, what, None)


def _call(method: str, url: str, token: str, word: str, values: dict[str, Any] | None) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise FreeholdError("lab-control-unreachable", f"not a control URL: {url!r}", url=url)
    try:
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=_SECONDS)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request(
                method, f"/-/lab/{quote(word)}", json.dumps(values).encode() if values is not None else None, headers
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FreeholdError(
            "lab-control-unreachable", f"no upstream's control door answers at {url}: {error}", url=url
        ) from error
    if not isinstance(answer, dict):
        raise FreeholdError("lab-control-unreachable", f"{url} is not an upstream's control door", url=url)
    failed = answer.get("error")
    if failed is not None:
        code = failed.get("code", "") if isinstance(failed, dict) else ""
        message = failed.get("message", "") if isinstance(failed, dict) else str(failed)
        raise FreeholdError(code, message)
    return answer


def announce(folder: Path, url: str, control_url: str, token: str) -> Path:
    """Leave word in the folder of where its upstream listens and with what token, for this user's eyes only.

    FreeholdError lab-upstream-running if one answers there already, lab-folder-unwritable.
    """
    file = folder / LAB / "control.json"
    try:
        other = announced(folder)
        ask(other["control_url"], other["token"], "state")
    except FreeholdError:
        pass
    else:
        raise FreeholdError("lab-upstream-running", f"an upstream serves {folder} already", folder=str(folder), url=other["url"])
    try:
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            json.dump({"url": url, "control_url": control_url, "token": token}, opened)
    except OSError as error:
        raise FreeholdError("lab-folder-unwritable", f"cannot write {file}: {error.strerror}", folder=str(folder)) from error
    return file


def announced(folder: Path) -> dict[str, str]:
    """`url`, `control_url` and `token` of the folder's upstream; FreeholdError lab-control-unreachable if it has left no word."""
    file = folder / LAB / "control.json"
    try:
        told = json.loads(file.read_bytes())
        return {name: str(told[name]) for name in ("url", "control_url", "token")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FreeholdError("lab-control-unreachable", f"no upstream runs on {folder}", folder=str(folder)) from error
