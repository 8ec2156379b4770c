"""The first instants of every child process: tie its life to the parent's, set its limits, become the program.

Why a launcher and not `preexec_fn`: that one runs Python between fork and exec, which is unsafe in a program with
threads. This file is run by path as a script, isolated (`python -I -S launch.py`), so it imports nothing of freehold
and costs about 15 ms. On Linux the kernel is asked to kill the process when its parent dies, however the parent dies
(PR_SET_PDEATHSIG outlives exec; it does not reach grandchildren). Elsewhere nothing of the kind exists: there a parent
that is killed with SIGKILL leaves the child behind, unless the child itself watches its standard input for the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(spec: str, *argv: str) -> None:
    """`spec`: JSON of `parent` (pid), `limits` (name of RLIMIT -> value). Ends by exec; exits 126 if that fails."""
    wanted = json.loads(spec)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != wanted["parent"]:
            os._exit(125)
    if wanted["limits"]:
        import resource

        for name, value in wanted["limits"].items():
            number = getattr(resource, f"RLIMIT_{name.upper()}")
            hard = resource.getrlimit(number)[1]
            ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (ceiling, ceiling))
    try:
        os.execv(argv[0], argv)  # noqa: S606 - that there is no shell is the point
    except OSError as error:
        os.write(2, f"cannot run {argv[0]}: {error.strerror}\n".encode())
        os._exit(126)


if __name__ == "__main__":
    main(*sys.argv[1:])
