"""A home with models from the lab behind the product's own server, and a browser without scripts."""

from __future__ import annotations

import html
import http.client
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from freehold.app import House, house
from freehold.flows import keys
from freehold.flows.pull import pull
from freehold.lab.models import make_model
from freehold.nouns.caller import Scope
from freehold.nouns.moment import Clock
from freehold.testing.server import running_server
from freehold.web.send import SendfileProtocol
from freehold.web.server import build

#: Name under which each lab model is kept.
SAFE, GGUF = "lab/atlas", "lab/deed"


@dataclass(frozen=True)
class Answer:
    """What came back: `cookies` are the Set-Cookie headers as sent."""

    status: int
    headers: dict[str, str]
    cookies: list[str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def place(self) -> str:
        return self.headers.get("location", "")

    def token(self) -> str:
        """The token of the first form on the page."""
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.text)
        assert found, "no form with a token on this page"
        return found[1]


@dataclass
class Browser:
    """Keeps cookies as a browser does, follows nothing by itself and runs no script. `origin` goes with every POST."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    jar: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str] | list[tuple[str, str]], **headers: str) -> Answer:
        sent = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin} | headers
        return self._ask("POST", path, urlencode(fields).encode(), {k: v for k, v in sent.items() if v})

    def log_in(self, key: str, back: str = "") -> Answer:
        page = self.get("/-/login" + (f"?{urlencode({'return': back})}" if back else ""))
        found = re.search(r'name="return" value="([^"]*)"', page.text)
        assert found
        return self.post("/-/login", {"csrf": page.token(), "key": key, "return": html.unescape(found[1])})

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        sent = self.headers | headers | ({"Cookie": "; ".join(f"{k}={v}" for k, v in self.jar.items())} if self.jar else {})
        parts = urlsplit(self.url)
        with closing(http.client.HTTPConnection(parts.netloc, timeout=20)) as connection:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in sent.items()})
            answer = connection.getresponse()
            cookies = [v for k, v in answer.getheaders() if k.lower() == "set-cookie"]
            for cookie in cookies:
                name, _, value = cookie.partition(";")[0].partition("=")
                if "Max-Age=0" in cookie:
                    self.jar.pop(name, None)
                else:
                    self.jar[name] = value
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, cookies, answer.read())


@dataclass
class Open:
    """A served home. `keys` maps a role to its token; `now` moves its clock, in microseconds."""

    house: House
    url: str
    keys: dict[str, str]
    ahead: list[int]

    def browser(self, role: str | None = None) -> Browser:
        """A browser, logged in with the key of `role` if given."""
        found = Browser(self.url)
        if role:
            assert found.log_in(self.keys[role]).status == 303
        return found

    def pass_time(self, seconds: int) -> None:
        self.ahead[0] += seconds * 1_000_000


@contextmanager
def opened(home: Path, *, fill: bool = True, **flags: object) -> Iterator[Open]:
    """A home with two small models of the lab and the echo to chat with, behind a real server. `flags` as [server]."""
    home.mkdir(parents=True)
    (home / "freehold.toml").write_text("[use]\necho = true\n")
    with house(str(home), **flags) as found:
        if fill:
            for name, form, seed in ((SAFE, "safetensors", 5), (GGUF, "gguf", 6)):
                make_model(home.parent / name, seed=seed, size_mb=1, format=form)
                pull(found.parts, found.caller, str(home.parent / name), name=name)
        ahead = [0]
        real = found.parts.clock

        def clock() -> int:
            return real() + ahead[0]

        with _served(replace(found, parts=replace(found.parts, clock=clock)), ahead, clock) as served:
            yield served


@contextmanager
def _served(found: House, ahead: list[int], clock: Clock) -> Iterator[Open]:
    roles = {"admin": {Scope.ADMIN}, "chat": {Scope.READ, Scope.CHAT}, "read": {Scope.READ}}
    made = {role: keys.create_key(found.parts, found.caller, f"{role} key", frozenset(s)).token for role, s in roles.items()}
    with running_server(build(found), http=SendfileProtocol) as url:
        yield Open(found, url, made, ahead)


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """One served home for tests that leave it as it was."""
    with opened(tmp_path_factory.mktemp("console") / "home") as found:
        yield found


@pytest.fixture(scope="session")
def open_home() -> Callable[..., AbstractContextManager[Open]]:
    """`opened`, for tests that need a home of other settings."""
    return opened


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Open]:
    """A served home of this test alone, without models."""
    with opened(tmp_path / "home", fill=False) as found:
        yield found
