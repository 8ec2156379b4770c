"""The home folder: its layout, its format version, and the lock that keeps a second server away.

Everything freehold knows lies below one folder, so that copying the folder copies the house. Many processes may use a
home at once; only a second *server* is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from freehold.errors import FreeholdError

#: The layout that this version reads and writes.
FORMAT = 1
#: How long a start waits for the lock: `running_server` holds it for a moment when it looks.
_GLANCE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Home:
    """Paths inside a home."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "freehold.toml"

    @property
    def objects(self) -> Path:
        return self.path / "vault"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def clients(self) -> Path:
        return self.path / "clients"

    def database(self, name: str) -> Path:
        return self.path / f"{name}.db"


def open_home(path: Path) -> Home:
    """Open or create the home at `path`. Raises home-newer-format, home-not-a-home, home-unwritable."""
    path = path.expanduser().absolute()
    marker = path / "format.json"
    try:
        if not marker.exists():
            _create(path, marker)
        found = json.loads(marker.read_text("utf-8"))["format"]
    except (OSError, UnicodeDecodeError) as error:
        raise FreeholdError("home-unwritable", f"cannot use {path} as home: {error}", path=path) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FreeholdError("home-not-a-home", f"{marker} is not a freehold format file", path=path) from error
    if not isinstance(found, int) or found > FORMAT:
        message = f"{path} has home format {found}; this freehold knows up to {FORMAT}"
        raise FreeholdError("home-newer-format", message, path=path, found=found, known=FORMAT)
    home = Home(path)
    try:
        for folder in (home.objects, home.spool, home.run, home.logs, home.clients):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("not writable")
    except OSError as error:
        raise FreeholdError("home-unwritable", f"cannot use {path} as home: {error}", path=path) from error
    return home


def _create(path: Path, marker: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    strangers = sorted(
        p.name for p in path.iterdir() if p.name not in {"freehold.toml", ".gitignore"} and not p.name.endswith(".new")
    )
    if strangers and not marker.exists():
        message = f"{path} holds other things ({', '.join(strangers[:3])} ...)"
        raise FreeholdError("home-not-a-home", message, path=path)
    fresh = marker.with_name(f"format.json.{os.getpid()}.new")
    fresh.write_text(json.dumps({"format": FORMAT, "product": "freehold"}) + "\n", "utf-8")
    fresh.replace(marker)


class ServerLock:
    """Held by the one server of a home; the lock falls with the process, however it dies."""

    def __init__(self, home: Home) -> None:
        self._path = home.run / "server.json"
        try:
            self._file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise FreeholdError("home-unwritable", f"cannot write {self._path}: {error}", path=self._path) from error

    def acquire(self) -> Self:
        """Raises server-already-running with the other server's URL."""
        until = time.monotonic() + _GLANCE_SECONDS
        try:
            while not self._try():
                if time.monotonic() > until:
                    raise BlockingIOError("locked")
                time.sleep(0.01)
        except OSError as error:
            self._file.seek(0)
            url = _url_of(self._file.read())
            self._file.close()
            message = "another server runs on this home" + (f": {url}" if url else "")
            raise FreeholdError("server-already-running", message, url=url) from error
        self._file.truncate(0)  # a killed server left its URL here: nobody may take it for ours
        return self

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def announce(self, url: str) -> None:
        """Write this server's URL where other commands of the same home look for it."""
        self._file.seek(0)
        self._file.truncate()
        json.dump({"url": url, "pid": os.getpid()}, self._file)
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.close()


def running_server(home: Home) -> str | None:
    """The URL of the server that runs on this home, or None."""
    path = home.run / "server.json"
    if not path.exists():
        return None
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _url_of(file.read())
    return None


def _url_of(text: str) -> str | None:
    try:
        return str(json.loads(text)["url"])
    except (ValueError, KeyError, TypeError):
        return None
