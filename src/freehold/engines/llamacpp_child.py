"""The child process that holds a model: llama.cpp's own server, told what to do by one JSON line on standard input.

Why a process of its own: a crash in C++ must not take the gateway along, and its memory goes back to the system when it
ends. It is run by path, not as a module, so that it loads neither freehold nor its dependencies. It answers with one JSON
line on standard output ({"ready": address} or {"error": kind, "reason": text}), logs on standard error, and ends when its
standard input does, which is when its parent is gone. It does not restart itself.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn, TextIO


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # llama.cpp logs on both; only answers may go where the parent reads.
    os.dup2(2, 1)
    config = json.loads(sys.stdin.readline())
    _be_first_to_go()
    try:
        import xllamacpp
    except ImportError as error:
        _end(answers, "not-installed", str(error))
    try:
        server = xllamacpp.Server(_params(xllamacpp, config))
    except AttributeError as error:
        _end(answers, "load-failed", f"this version of xllamacpp differs from the one freehold is made for: {error}")
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        _end(answers, "load-failed", str(error))
    answers.write(json.dumps({"ready": server.listening_address}) + "\n")
    answers.flush()
    sys.stdin.read()
    os._exit(0)


def _params(xllamacpp: Any, config: dict[str, Any]) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.model_alias = {config["alias"]}
    params.hostnames = [config["listen"]]
    params.port = 0
    params.api_keys = [config["key"]]
    # One context for each slot: a long answer cannot starve the others.
    params.n_parallel = config["slots"]
    params.n_ctx = config["context"] * config["slots"]
    params.kv_unified = False
    params.cpuparams.n_threads = config["threads"]
    params.cpuparams_batch.n_threads = config["threads"]
    params.n_threads_http = config["slots"] + 6
    # The default keeps up to 8 GB of earlier prompts in memory.
    params.cache_ram_mib = 0
    params.ui = False
    params.endpoint_slots = True
    params.warmup = config["warmup"]
    # Warnings and errors only: information is several lines for each request.
    params.verbosity = 2
    return params


def _be_first_to_go() -> None:
    """Where memory runs out, the kernel should end the engine, which can be started again, not the gateway."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")
    except OSError:
        return


def _end(answers: TextIO, kind: str, reason: str) -> NoReturn:
    answers.write(json.dumps({"error": kind, "reason": reason}) + "\n")
    answers.flush()
    # An ordinary end: llama.cpp logs in a thread, and the reason must still get out.
    sys.exit(3)


if __name__ == "__main__":
    main()
