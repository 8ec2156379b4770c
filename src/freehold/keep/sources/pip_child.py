"""Runs pip unchanged, and gives each wheel that it is about to delete a second name in the folder of the first argument.

Why: asked only for its report, pip fetches the wheel all the same where the index has no separate metadata, and deletes it at
its end. With this it need not be fetched again. The interpreter's audit events are the one public way to see the
deletion before it happens, whichever version of pip there is. A script for a child process: nothing imports it.
"""

import contextlib
import os
import runpy
import sys
from typing import Any


def keep_deleted_wheels_in(folder: str) -> None:
    """From now on, in this process."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "os.remove":
            return
        path, directory = os.fsdecode(arguments[0]), arguments[1]
        if path.endswith(".whl"):
            with contextlib.suppress(OSError):
                os.link(path, os.path.join(folder, os.path.basename(path)), src_dir_fd=directory if directory >= 0 else None)  # noqa: PTH118, PTH119

    sys.addaudithook(watch)


if __name__ == "__main__":
    keep_deleted_wheels_in(sys.argv.pop(1))
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
