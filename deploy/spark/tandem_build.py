"""Builds a snapshot of Tandem on Spark, whose rows are shuffled once, by shard.

    spark-submit --files bin/tandem tandem_build.py --store STORE -- FLAGS

FLAGS are those of `tandem build plan`, without --store; a run with the same ones goes on
where another ended. The last line of the output is the digest of the snapshot, which is the
digest that `tandem build` gives on one machine. The exit code is that of the step of
`tandem build` that failed: 2, 3 or 5 for what another try would not mend, else 1.

Each task of the plan is read by a task of Spark, which hashes the ids of its records; each
shard is built by one that has all of its records; the last one commits. Rows are decoded and
judged by tandem alone, and Spark moves records that only tandem understands: a reader of
Spark's or Arrow's would change some (timestamps of 96 bits, lists, wide decimals, texts that
are no UTF-8), and the snapshot would be another.

A task that is killed at any point may run again, and two attempts of one may run at once:
what is in the store already is not uploaded again.

It needs Spark 4.1 or later, without Spark Connect, and on executors pyarrow and xxhash. What
tandem takes of memory is outside the JVM: spark.executor.memoryOverhead must have room for it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO, Any

import pyarrow as pa
import xxhash
from pyspark import AccumulatorParam, SparkContext, SparkFiles, TaskContext
from pyspark.sql import SparkSession

# What tandem exits with where another try would end in the same way: wrong use, a snapshot
# that is not fit for release, an input that is refused.
FINAL_CODES = (2, 3, 5)

# How much of what tandem says an error repeats, from the end; executors log all of it.
SAID_BYTES = 8 << 10

# How long a step may take to end after it has closed a pipe.
END_SECONDS = 60

# What goes through the shuffle. The record is tandem's.
SHUFFLED = "shard int, task int, seq long, record binary"
SHUFFLED_ARROW = pa.schema(
    [("shard", pa.int32()), ("task", pa.int32()), ("seq", pa.int64()), ("record", pa.binary())]
)
# What the step that builds a shard reads.
RECORDS = pa.schema([("task", pa.int32()), ("seq", pa.int64()), ("record", pa.binary())])

# Runs a program that is killed when the process whose id is given ends, however that ends:
# Spark kills the Python of a task, not what that has started. Nothing but Linux can do it.
LAUNCHER = """
import ctypes, os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if sys.platform == "linux":
    if ctypes.CDLL(None).prctl(1, signal.SIGKILL) != 0 or os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class StepError(Exception):
    """A step of tandem that failed, with its exit code and the end of what it said."""

    def __init__(self, step: str, code: int, said: str) -> None:
        super().__init__(step, code, said)
        self.step, self.code, self.said = step, code, said

    def __str__(self) -> str:
        how = f"exit code {self.code}" if self.code >= 0 else f"killed by signal {-self.code}"
        return f"tandem build {self.step}: {how}\n{self.said}".rstrip()

    @property
    def final(self) -> bool:
        """Whether another try would fail in the same way."""
        return self.code in FINAL_CODES


@dataclasses.dataclass(frozen=True)
class Tower:
    """How many shards a tower has, and the number of its first among those of both."""

    shards: int
    first: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What of a planned build Spark needs to know: the towers that its tasks read, by task."""

    build: str
    towers: tuple[Tower, ...]
    shards: int

    @staticmethod
    def parse(text: str) -> Plan:
        """Reads what `tandem build plan --json` prints."""
        plan = json.loads(text)
        towers = {name: Tower(plan[name]["shards"], plan[name]["first_index"]) for name in ("apps", "users")}
        numbers = [task["task"] for task in plan["tasks"]]
        if numbers != list(range(len(numbers))):
            raise ValueError(f"tasks of the plan are numbered {numbers[:20]}, want 0, 1 and so on")
        return Plan(
            build=plan["build"],
            towers=tuple(towers[task["tower"]] for task in plan["tasks"]),
            shards=sum(tower.shards for tower in towers.values()),
        )


@dataclasses.dataclass(frozen=True)
class Tandem:
    """The program, and what all of its steps are given."""

    program: str
    store: tuple[str, ...]
    folder: str

    def step(self, step: str, *flags: str) -> list[str]:
        """Returns the command of a step, for the machine that this runs on."""
        return [self._find(), "build", step, *self.store, *flags]

    def _find(self) -> str:
        if os.sep not in self.program:
            shipped = os.path.abspath(SparkFiles.getRootDirectory())  # of executors it is relative
            for path in (os.path.join(shipped, self.program), shutil.which(self.program)):
                if path and os.path.isfile(path):
                    return path
        elif os.path.isfile(self.program):
            return self.program
        raise FileNotFoundError(
            f"{self.program}: no file that --files brought, and no program, on {os.uname().nodename}"
        )


def shards_of(ids: pa.Array, tower: Tower) -> pa.Array:
    """Returns the shards, among those of both towers, that ids belong to.

    The hash is xxh64 with seed 0 and has no sign. Spark's own xxhash64 has seed 42 and a sign.
    """
    digest = xxhash.xxh64_intdigest
    return pa.array([tower.first + digest(i) % tower.shards for i in ids.to_pylist()], pa.int32())


@contextlib.contextmanager
def running(tandem: Tandem, step: str, *flags: str, **pipes: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a step of tandem, and raises StepError if it fails.

    An error of the block kills the step, unless the step has failed before: then that is the
    reason for both.
    """
    scratch = scratch_folder()
    command = [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), *tandem.step(step, *flags)]
    with tempfile.TemporaryFile(dir=scratch) as said:
        process = subprocess.Popen(
            command,
            stderr=said,
            cwd=tandem.folder if os.path.isdir(tandem.folder) else None,
            env={**os.environ, "TMPDIR": scratch},
            **pipes,  # type: ignore[call-overload]
        )
        failed: Exception | None = None
        killed = False
        try:
            yield process
        except (pa.ArrowException, OSError) as err:
            failed = err
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_SECONDS)  # a pipe that is cut most likely says that the step ends
            killed = process.poll() is None
        except BaseException:
            killed = True
            raise
        finally:
            if killed:
                process.kill()
            for end in (process.stdin, process.stdout):
                if end is not None:
                    with contextlib.suppress(OSError):
                        end.close()
            process.wait()
            text = tell(said)
    if failed is not None and (killed or process.returncode == 0):
        raise failed
    if process.returncode != 0:
        raise StepError(step, process.returncode, text) from failed


def scratch_folder() -> str:
    """Returns a folder for temporary files: one of those that Spark has on this machine."""
    folders = [f for f in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if os.path.isdir(f)]
    return folders[partition_number() % len(folders)] if folders else tempfile.gettempdir()


def partition_number() -> int:
    """Returns which part of the data the task has in which this runs; 0 on the driver."""
    task = TaskContext.get()
    return task.partitionId() if task else 0


def tell(said: IO[bytes]) -> str:
    """Copies what a step said to the log of the executor, and returns the end of it."""
    said.seek(0)
    end = b""
    while block := said.read(1 << 20):
        sys.stderr.write(block.decode(errors="replace"))
        end = (end + block)[-SAID_BYTES:]
    sys.stderr.flush()
    return end.decode(errors="replace").strip()


def read_task(tandem: Tandem, plan: Plan, task: int) -> Iterator[pa.RecordBatch]:
    """Yields the records of a task of the plan, with the shards that they belong to."""
    tower = plan.towers[task]
    flags = ("--build", plan.build, "--task", str(task), "--records")
    with (
        running(tandem, "partition", *flags, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process,
        pa.ipc.open_stream(process.stdout) as records,
    ):
        for batch in records:
            columns = [
                shards_of(batch.column("id"), tower),
                pa.array([task] * batch.num_rows, pa.int32()),
                batch.column("seq"),
                batch.column("record"),
            ]
            yield pa.record_batch(columns, schema=SHUFFLED_ARROW)


def build_shard(
    tandem: Tandem, plan: Plan, shard: int, threads: int, batches: Iterable[pa.RecordBatch]
) -> None:
    """Builds a shard of its records, which are ascending by task and place."""
    flags = ("--build", plan.build, "--index", str(shard), "--threads", str(threads), "--records")
    with running(tandem, "shard", *flags, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a shard that is done needs no records
            records = pa.ipc.new_stream(process.stdin, RECORDS)
            for batch in batches:
                if any(n != shard for n in batch.column("shard").unique().to_pylist()):
                    raise ValueError(f"Spark gave records of other shards to the task of shard {shard}")
                records.write_batch(batch.select(RECORDS.names))
            records.close()  # not after an error: it says that there are no more records
            process.stdin.close()


Failure = tuple[str, int, str]  # what a StepError is made of: a class of ours has another identity in tasks


class Failures(AccumulatorParam[list[Failure]]):
    """Failures that end a build, which tasks tell the driver of."""

    def zero(self, value: list[Failure]) -> list[Failure]:
        return []

    def addInPlace(self, value1: list[Failure], value2: list[Failure]) -> list[Failure]:
        return (value1 + value2)[:100]


class Job:
    """A build on Spark, of which no task is tried again if that would be in vain.

    Spark tries a task that raises again, whatever it raises. So one whose failure is final
    ends well, and tells the driver by an accumulator, which is known there as soon as the task
    has ended; the driver cancels all others.
    """

    def __init__(self, spark: SparkSession, tandem: Tandem, plan: Plan, threads: int) -> None:
        self.spark, self.tandem, self.plan, self.threads = spark, tandem, plan, threads
        self.context: SparkContext = spark.sparkContext
        # Plans that change while they run have other partitions than shards.
        spark.conf.set("spark.sql.adaptive.enabled", "false")
        spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(8 << 20))

    def shards(self) -> None:
        """Builds all shards."""
        tandem, plan, threads = self.tandem, self.plan, self.threads
        failures = self.context.accumulator([], Failures())

        def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            try:
                for batch in batches:
                    for task in batch.column(0).to_pylist():
                        yield from read_task(tandem, plan, task)
            except StepError as err:
                if not err.final:
                    raise
                failures.add([err.args])

        def build(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            shard = partition_number()
            try:
                build_shard(tandem, plan, shard, threads, batches)
            except StepError as err:
                if not err.final:
                    raise
                failures.add([err.args])
            else:
                yield pa.record_batch([pa.array([shard], pa.int32())], names=["shard"])

        tasks = len(plan.towers)
        records = self.spark.range(0, tasks, 1, tasks).mapInArrow(read, SHUFFLED)
        sorted_records = records.repartitionById(plan.shards, "shard").sortWithinPartitions("task", "seq")
        built = self._collect(sorted_records.mapInArrow(build, "shard int"), "build shards", failures)
        missing = sorted(set(range(plan.shards)) - {row.shard for row in built})
        if missing:
            raise RuntimeError(f"Spark ran no task for {len(missing)} shards, the first is {missing[0]}")

    def commit(self) -> str:
        """Publishes the snapshot, and returns its digest."""
        tandem, plan, threads = self.tandem, self.plan, self.threads
        failures = self.context.accumulator([], Failures())

        def commit(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for _ in batches:
                pass
            flags = ("--build", plan.build, "--threads", str(threads))
            try:
                with running(
                    tandem, "commit", *flags, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
                ) as process:
                    assert process.stdout is not None
                    report = process.stdout.read().decode()
            except StepError as err:
                if not err.final:
                    raise
                failures.add([err.args])
            else:
                yield pa.record_batch([pa.array([report])], names=["report"])

        rows = self._collect(
            self.spark.range(0, 1, 1, 1).mapInArrow(commit, "report string"), "commit", failures
        )
        return rows[0].report

    def _collect(self, frame: Any, what: str, failures: Any) -> list[Any]:
        group, ended = f"tandem {self.plan.build}", threading.Event()

        def watch() -> None:
            while not ended.wait(0.2):
                if failures.value:
                    self.context.cancelJobGroup(group)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        self.context.setJobGroup(group, f"tandem build: {what}", interruptOnCancel=True)
        watcher.start()
        try:
            rows = frame.collect()
        except Exception:
            if failures.value:
                raise StepError(*failures.value[0]) from None  # the others were cancelled because of it
            raise
        finally:
            ended.set()
            watcher.join()
        if failures.value:
            raise StepError(*failures.value[0])
        return rows


def arguments(args: list[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description="Builds a snapshot of Tandem on Spark.",
        usage="%(prog)s --store STORE [--tandem PROGRAM] [--threads N] -- FLAGS of tandem build plan",
    )
    parser.add_argument(
        "--store", required=True, help="URL of the store, or a folder that all machines share"
    )
    parser.add_argument(
        "--tandem",
        default="tandem",
        metavar="PROGRAM",
        help="the name of a file of --files, of a program of all machines, or a path (default %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads that a shard is built on (default spark.task.cpus)"
    )
    parser.add_argument("plan", nargs="+", metavar="FLAGS", help="flags of tandem build plan")
    parsed = parser.parse_args(args)
    if parsed.threads is not None and parsed.threads < 1:
        parser.error(f"--threads is {parsed.threads}, want at least 1")
    # Executors have other working folders than the driver.
    if "://" not in parsed.store:
        parsed.store = os.path.abspath(parsed.store)
    if os.sep in parsed.tandem:
        parsed.tandem = os.path.abspath(parsed.tandem)
    return parsed


def main(args: list[str]) -> int:
    """Runs the job, and returns its exit code."""
    options = arguments(args)
    spark = SparkSession.builder.appName("tandem build").getOrCreate()
    tandem = Tandem(options.tandem, ("--store", options.store), os.getcwd())
    threads = options.threads or int(spark.conf.get("spark.task.cpus", "1") or 1)
    try:
        with running(tandem, "plan", *options.plan, "--json", stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            plan = Plan.parse(process.stdout.read().decode())
        job = Job(spark, tandem, plan, threads)
        job.shards()
        print(job.commit(), end="")
    except StepError as err:
        print(err, file=sys.stderr)
        return err.code if err.final else 1
    finally:
        spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
