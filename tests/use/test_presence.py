"""Signs of life end with the process, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from freehold.use.presence import Presence, is_alive, sweep

_CHILD = """
import sys, time
from pathlib import Path
from freehold.use.presence import Presence
presence = Presence(Path(sys.argv[1]))
print(presence.id, flush=True)
time.sleep(60)
"""


def test_a_process_counts_as_alive_until_it_leaves(tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    assert is_alive(tmp_path, presence.id)
    sweep(tmp_path)
    assert is_alive(tmp_path, presence.id)
    presence.close()
    assert not is_alive(tmp_path, presence.id)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_is_dead_at_once_and_its_file_is_swept(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        assert is_alive(tmp_path, owner)
        child.send_signal(signal.SIGKILL)
        child.wait()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not is_alive(tmp_path, owner)


def test_nobody_of_that_name_is_not_alive(tmp_path: Path) -> None:
    assert not is_alive(tmp_path, "0" * 32)
