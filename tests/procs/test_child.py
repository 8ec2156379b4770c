"""Child processes: how they start, speak and end."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from freehold.errors import FreeholdError
from freehold.procs.child import TAIL, Child, Exit, minimal_environment, run

ENV = minimal_environment()


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _gone(pid: int, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not _alive(pid)


def test_a_child_sees_its_arguments_untouched_and_no_shell_reads_them() -> None:
    done = run([sys.executable, "-c", "import sys; print(sys.argv[1:])", "$(id)", "; ls", "a b", "ü"], env=ENV)
    assert done.exit.ok
    assert done.tail.strip() == "['$(id)', '; ls', 'a b', 'ü']"


def test_the_environment_is_exactly_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEHOLD_TEST_SECRET", "s3cret")
    listing = run(
        _python("import os; print(sorted(os.environ))"), env={"PATH": os.environ["PATH"], "ONE": "1", "LC_CTYPE": "C.UTF-8"}
    )
    assert listing.tail.strip() == "['LC_CTYPE', 'ONE', 'PATH']"
    assert "FREEHOLD_TEST_SECRET" not in minimal_environment(A="b")


def test_exit_code_and_signal_are_told_apart() -> None:
    assert run(_python("raise SystemExit(7)"), env=ENV).exit == Exit(7)
    ended = run(_python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), env=ENV).exit
    assert ended == Exit(None, signal.SIGSEGV)
    assert (str(Exit(7)), str(ended)) == ("exit code 7", "killed by SIGSEGV")


def test_a_missing_program_and_one_that_cannot_be_run_have_codes_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(FreeholdError) as missing:
        Child.start(["no-such-program-here"], env=ENV)
    assert missing.value.code == "procs-program-missing"
    with pytest.raises(FreeholdError) as nul:
        Child.start([sys.executable, "a\0b"], env=ENV)
    assert nul.value.code == "procs-start-failed"
    with pytest.raises(FreeholdError) as folder:
        Child.start([sys.executable], env=ENV, cwd=tmp_path / "absent")
    assert folder.value.code == "procs-start-failed"
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF no")
    broken.chmod(0o755)
    done = run([str(broken)], env=ENV)
    assert done.exit == Exit(126)
    assert "cannot run" in done.tail


def test_output_is_kept_to_its_end_and_bounded_and_never_blocks_the_child() -> None:
    done = run(_python("import sys; [print(i) for i in range(200_000)]; print('last', file=sys.stderr)"), env=ENV)
    assert done.exit.ok
    assert len(done.tail) <= TAIL
    assert "199999" in done.tail


def test_a_log_file_gets_everything_and_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "child.log"
    for word in ("first", "second"):
        assert run(_python(f"print('{word}')"), env=ENV, log=log).tail.endswith(f"{word}\n")
    assert log.read_text() == "first\nsecond\n"


def test_standard_output_can_be_taken_by_line_while_errors_go_to_the_tail() -> None:
    lines: list[str] = []
    child = Child.start(
        _python("import sys; print('one'); print('x' * 100_000); print('two', flush=True); sys.stderr.write('noise')"),
        env=ENV,
        on_line=lines.append,
    )
    assert child.wait(10).ok
    assert [line[:3] for line in lines] == ["one", "xxx", "two"]
    assert len(lines[1]) <= TAIL
    assert child.tail() == "noise"


def test_input_is_read_and_a_held_input_tells_the_child_when_to_end() -> None:
    assert run(_python("import sys; print(len(sys.stdin.read()))"), env=ENV, stdin=b"x" * 300_000).tail.strip() == "300000"
    lines: list[str] = []
    echo = _python("import sys; print(sys.stdin.readline(), end='', flush=True); sys.stdin.read(); print('over')")
    child = Child.start(echo, env=ENV, stdin=b"hello\n", hold_stdin=True, on_line=lines.append)
    until = time.monotonic() + 10
    while not lines and time.monotonic() < until:
        time.sleep(0.01)
    assert lines == ["hello"]
    assert child.exit is None
    child.stop()


def test_a_timeout_kills_the_group_and_says_so(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(FreeholdError) as caught:
        run(_python("import time; print('here', flush=True); time.sleep(60)"), env=ENV, timeout=1.0)
    assert caught.value.code == "procs-timeout"
    assert "here" in caught.value.context["tail"]
    assert time.monotonic() - began < 10


def test_stop_is_gentle_first_and_kills_a_child_that_will_not_go() -> None:
    ready: list[str] = []
    polite = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(3)); print('up', flush=True); time.sleep(60)"
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    first = Child.start(_python(polite), env=ENV, on_line=ready.append)
    second = Child.start(_python(stubborn), env=ENV, on_line=ready.append)
    until = time.monotonic() + 10
    while len(ready) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert first.stop(grace=10) == Exit(3)
    assert second.stop(grace=0.2) == Exit(None, signal.SIGKILL)
    assert second.stop(grace=0.2) == Exit(None, signal.SIGKILL), "stopping twice is harmless"


def test_grandchildren_do_not_outlive_a_child_that_crashed() -> None:
    lines: list[str] = []
    code = """
        import os, subprocess, sys
        inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(inner.pid, flush=True)
        os.abort()
    """
    child = Child.start(_python(code), env=ENV, on_line=lines.append)
    assert child.wait(10) == Exit(None, signal.SIGABRT)
    assert _gone(int(lines[0]))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux only")
@pytest.mark.parametrize("started_in_a_thread", [False, True])
def test_a_child_dies_with_a_parent_that_is_killed_but_not_with_the_thread_that_asked(started_in_a_thread: bool) -> None:
    code = f"""
        import sys, threading, time
        from freehold.procs.child import Child, minimal_environment
        made = []
        def make():
            made.append(Child.start([sys.executable, "-c", "import time; time.sleep(60)"], env=minimal_environment()))
        if {started_in_a_thread}:
            thread = threading.Thread(target=make); thread.start(); thread.join(); time.sleep(0.3)
        else:
            make()
        print(made[0].pid, made[0].exit, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(_python(code), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, ended = parent.stdout.readline().split()
        assert ended == "None"
        assert _alive(int(pid))
        parent.kill()
    assert _gone(int(pid))


def test_an_ordinary_end_of_the_parent_ends_its_children() -> None:
    code = """
        import sys
        from freehold.procs.child import Child, minimal_environment
        print(Child.start([sys.executable, "-c", "import time; time.sleep(60)"], env=minimal_environment()).pid, flush=True)
    """
    ended = subprocess.run(_python(code), capture_output=True, text=True, timeout=30, check=True)
    assert _gone(int(ended.stdout))


def test_limits_hold_in_the_child() -> None:
    done = run(_python("import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"), env=ENV, limits={"nofile": 64})
    assert done.tail.strip() == "(64, 64)"


def test_async_callers_see_the_same_child_and_may_give_up_on_a_start() -> None:
    async def story() -> None:
        child = await Child.start_async(_python("import time; time.sleep(60)"), env=ENV)
        waiting = asyncio.create_task(child.wait_async())
        await asyncio.sleep(0.05)
        assert await child.stop_async() == Exit(None, signal.SIGTERM)
        assert await waiting == child.exit
        start = asyncio.create_task(Child.start_async(_python("import time; time.sleep(60)"), env=ENV))
        await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    asyncio.run(story())
    leftover = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "stat="], capture_output=True, text=True, check=False
    ).stdout
    until = time.monotonic() + 5
    while leftover.count("\n") > 1 and time.monotonic() < until:
        time.sleep(0.05)
        leftover = subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "stat="], capture_output=True, text=True, check=False
        ).stdout
    assert leftover.count("\n") <= 1, "only ps itself is left"
