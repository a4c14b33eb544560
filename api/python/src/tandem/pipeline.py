"""Runs builds, gates and releases from a pipeline, by the command tandem.

Each function runs one command with --json and returns its report as a dictionary. Exit codes are exceptions, so that
a scheduler knows what it may try again: CommandFailed perhaps, UsageError, Unfit and BadInputs never.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import deque
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Report = dict[str, Any]
Flag = str | int | float | bool | os.PathLike[str] | None

_KEPT_LINES = 200
_KEPT_LINE = 2000


class CommandError(Exception):
    """A command that has not done what it was asked."""

    def __init__(self, command: Sequence[str], exit_code: int, output: str, report: Report | None) -> None:
        self.command = list(command)
        self.exit_code = exit_code
        self.output = output
        """The end of what it has told on stderr."""
        self.report = report
        """Its report, if it has made one, as a build that is not fit for release has."""
        last = output.strip().splitlines()[-1:] or ["it has said nothing"]
        super().__init__(f"tandem {' '.join(self.command[1:3])}: exit code {exit_code}: {last[0][:1000]}")


class CommandFailed(CommandError):
    """It failed (1), or a server did not answer (4), or a signal has ended it: it may succeed another time."""


class UsageError(CommandError):
    """It was asked for what cannot be (2): it fails again until the flags, or the files of settings, are changed."""


class Unfit(CommandError):
    """A snapshot is not fit for release (3), or a release was refused for that: the report says which gates failed."""


class BadInputs(CommandError):
    """The inputs of a build, a step of one, or a gate are at fault (5), as towers of two training runs are: it fails
    again until they are written anew."""


_ERRORS: dict[int, type[CommandError]] = {2: UsageError, 3: Unfit, 5: BadInputs}


def run(*arguments: str, binary: str | os.PathLike[str] = "tandem", timeout: float | None = None, log: Callable[[str], None] | None = None) -> Report:
    """Runs a command with --json, and returns its report.

    log is called with each line of progress. After timeout seconds the command is asked to end, and killed ten
    seconds later; what it was doing can be done again.
    """
    # Of gate the flag takes a file.
    command = [os.fspath(binary), *arguments, "--json=-" if arguments[:1] == ("gate",) else "--json"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    tail: deque[str] = deque(maxlen=_KEPT_LINES)
    out: list[bytes] = []

    def read_progress() -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for raw in lines:
                line = raw.decode(errors="replace").rstrip("\n")[:_KEPT_LINE]
                tail.append(line)
                if log is not None:
                    log(line)

    def read_report() -> None:
        assert process.stdout is not None
        with process.stdout as f:
            out.append(f.read())

    readers = [Thread(target=read_progress, daemon=True), Thread(target=read_report, daemon=True)]
    for r in readers:
        r.start()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for r in readers:
            r.join(1)
        raise CommandFailed(command, process.returncode, "\n".join([*tail, f"it has not ended within {timeout:g} s"]), None) from None
    except BaseException:  # as where the scheduler ends the task
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    for r in readers:
        r.join()
    report = _report(out[0] if out else b"")
    if process.returncode != 0:
        raise _ERRORS.get(process.returncode, CommandFailed)(command, process.returncode, "\n".join(tail), report)
    if report is None:
        raise CommandFailed(command, 0, "its report is no JSON object; is the binary of this version?", None)
    return report


def _report(data: bytes) -> Report | None:
    try:
        report = json.loads(data)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def _flags(flags: dict[str, Flag | Sequence[str | os.PathLike[str]]]) -> list[str]:
    """Returns flags as arguments: shards=4 is --shards=4, free=True is --free, a list is a flag for each."""
    out: list[str] = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            out.append(flag)
        elif isinstance(value, (str, int, float, os.PathLike)):
            out.append(f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}")
        else:
            out += [f"{flag}={os.fspath(v)}" for v in value]
    return out


def build(
    *, apps: str | os.PathLike[str] | Sequence[str], users: str | os.PathLike[str] | Sequence[str], store: str, model: str,
    model_version: str, metric: str, binary: str | os.PathLike[str] = "tandem", timeout: float | None = None,
    log: Callable[[str], None] | None = None, **flags: Any,
) -> Report:
    """Builds a snapshot; further flags of tandem build are keywords, shards=4. Unfit says that its gates failed."""
    own = {"apps": apps, "users": users, "store": store, "model": model, "model_version": model_version, "metric": metric}
    return run("build", *_flags(own | flags), binary=binary, timeout=timeout, log=log)


def gate(snapshot: str, *, store: str, binary: str | os.PathLike[str] = "tandem", timeout: float | None = None, log: Callable[[str], None] | None = None, **flags: Any) -> Report:
    """Runs the gates on a snapshot anew. Unfit says that one failed."""
    return run("gate", snapshot, *_flags({"store": store} | flags), binary=binary, timeout=timeout, log=log)


def release(
    snapshot: str, *, store: str | None = None, server: str | Sequence[str] | None = None, binary: str | os.PathLike[str] = "tandem",
    timeout: float | None = None, log: Callable[[str], None] | None = None, **flags: Any,
) -> Report:
    """Starts a snapshot: all traffic if it is the first, or weight per mille of it beside others. Unfit says that
    the gates do not let it pass."""
    return run("release", "start", snapshot, *_flags({"store": store, "server": server} | flags), binary=binary, timeout=timeout, log=log)
