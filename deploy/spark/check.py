"""Compares builds on Spark with those of one machine, undisturbed and with tasks killed.

    python check.py --tandem bin/tandem --apps APPS --users USERS [--kills N] [--seed N] -- MORE FLAGS

It starts a cluster of two executors on this machine. Nothing may be uploaded twice, and nothing
but the snapshot be left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyspark

HERE = Path(__file__).resolve().parent


def environment() -> dict[str, str]:
    """Returns what a cluster needs that is made of the package pyspark."""
    return {
        **os.environ,
        "SPARK_HOME": os.path.dirname(pyspark.__file__),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_SCALA_VERSION": "2.13",
        "PYSPARK_PYTHON": sys.executable,
    }


def submit(tandem: Path, store: Path, flags: list[str], log: Path) -> subprocess.Popen[str]:
    """Starts the job; what Spark says goes to a log."""
    command = [
        str(Path(sys.executable).with_name("spark-submit")),
        *("--master", "local-cluster[2,1,1024]", "--files", str(tandem)),
        *("--conf", "spark.ui.enabled=false", "--conf", "spark.ui.showConsoleProgress=false"),
        *("--conf", "spark.task.maxFailures=100", "--conf", f"spark.local.dir={log.parent / 'local'}"),
        *(str(HERE / "tandem_build.py"), "--tandem", tandem.name, "--store", str(store), "--", *flags),
    ]
    with log.open("ab") as err:
        return subprocess.Popen(
            command, env=environment(), text=True, stdout=subprocess.PIPE, stderr=err, start_new_session=True
        )


class Uploads(threading.Thread):
    """Watches a folder that is a store: an object that is written again is another file."""

    def __init__(self, store: Path) -> None:
        super().__init__(daemon=True)
        self.store, self.first, self.again = store, dict[str, int](), set[str]()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            self.look()

    def look(self) -> None:
        """Notes the objects that have rows, and shards."""
        for pattern in ("shards/[!.]*", "builds/*/partition/[!.]*", "builds/*/received/[!.]*"):
            for path in self.store.glob(pattern):
                try:
                    inode = path.stat().st_ino
                except FileNotFoundError:
                    continue
                name = str(path.relative_to(self.store))
                if self.first.setdefault(name, inode) != inode:
                    self.again.add(name)

    def stop(self) -> None:
        """Ends the watch."""
        self.ended.set()
        self.join()


def descendants(root: int) -> dict[int, str]:
    """Returns the processes that a process has started, by what they are for us."""
    parents, commands = dict[int, int](), dict[int, str]()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(entry.name)] = (
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
    found = {}
    for pid, command in commands.items():
        at: int | None = pid
        while at and at != root:
            at = parents.get(at)
        if at != root or pid == root:
            continue
        if "CoarseGrainedExecutorBackend" in command:
            found[pid] = "executor"
        elif "pyspark.daemon" in command:
            found[pid] = "python"
        elif " build partition " in command or " build shard " in command or " build commit " in command:
            found[pid] = "tandem"
    return found


def kill(job: subprocess.Popen[str], times: int, draw: random.Random) -> list[str]:
    """Kills processes of a job, each while a task has a step at work, until it ends."""
    killed: list[str] = []
    while job.poll() is None and len(killed) < times:
        time.sleep(draw.uniform(0, 0.3))
        kinds = descendants(job.pid)
        if "tandem" not in kinds.values():
            continue
        kind = draw.choice(sorted(set(kinds.values())))
        pid = draw.choice([p for p, k in kinds.items() if k == kind])
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed.append(kind)
    return killed


def main() -> int:
    """Runs the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tandem", type=Path, required=True)
    parser.add_argument("--apps", required=True)
    parser.add_argument("--users", required=True)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("more", nargs="*")
    o = parser.parse_args()
    tandem = o.tandem.resolve()
    flags = ["--apps", os.path.abspath(o.apps), "--users", os.path.abspath(o.users)]
    flags += ["--model", "m", "--model-version", "1", "--metric", "dot", *o.more]
    print(f"seed {o.seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start = time.monotonic()
        whole = subprocess.run(
            [tandem, "build", *flags, "--store", folder / "one"],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        ).stdout.splitlines()[-1]
        print(f"one machine: {whole} in {time.monotonic() - start:.0f} s", flush=True)
        for name, kills in ("undisturbed", 0), ("killed", o.kills):
            store, log = folder / name, folder / f"{name}.log"
            store.mkdir()
            uploads = Uploads(store)
            uploads.start()
            start = time.monotonic()
            with submit(tandem, store, flags, log) as job:
                killed = kill(job, kills, random.Random(o.seed))
                out = job.communicate()[0].splitlines()
            took = time.monotonic() - start
            uploads.stop()
            uploads.look()
            digest = out[-1] if out else ""
            print(
                f"{name}: exit code {job.returncode}, {digest} in {took:.0f} s; killed {killed};"
                f" {len(uploads.first)} uploads, {len(uploads.again)} of them again",
                flush=True,
            )
            if job.returncode != 0 or digest != whole:
                print("\n".join(out[-40:]), log.read_text()[-8000:], sep="\n", file=sys.stderr)
                return 1
            left = [p for p in store.glob("builds/*/*/*")]
            if uploads.again or left or not uploads.first:
                print(f"uploaded again: {sorted(uploads.again)}; left: {left}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
