"""Tests of the job, with a program in place of tandem, on a cluster of Spark on this machine.

python -m unittest discover -s deploy/spark
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pyspark.sql import SparkSession

import check
import tandem_build

# Of what the program in place of tandem reads: some shards have no records.
TASKS, ROWS, SHARDS = 4, 8, (2, 9)

HERE = Path(__file__).resolve().parent
PARTITIONS = HERE.parent.parent / "shard" / "testdata" / "partition.json"


class ShardsTest(unittest.TestCase):
    """Ids belong to the shards that Tandem itself says, whose tests write the file."""

    def test_golden(self) -> None:
        rows = json.loads(PARTITIONS.read_text())
        self.assertGreater(len(rows), 20)
        for row in rows:
            for shards, want in row["shards"].items():
                with self.subTest(id=row["id"], shards=shards):
                    ids = pa.array([bytes.fromhex(row["id"])], pa.binary())
                    got = tandem_build.shards_of(ids, tandem_build.Tower(int(shards), 5))
                    self.assertEqual(got.to_pylist(), [5 + want])

    def test_empty(self) -> None:
        got = tandem_build.shards_of(pa.array([], pa.binary()), tandem_build.Tower(3, 0))
        self.assertEqual((len(got), got.type), (0, pa.int32()))


class PlanTest(unittest.TestCase):
    """A plan is what `tandem build plan --json` prints."""

    def plan(self, numbers: list[int]) -> str:
        tasks = [{"task": n, "tower": "users"} for n in numbers]
        towers = {"apps": {"shards": 3, "first_index": 0}, "users": {"shards": 2, "first_index": 3}}
        return json.dumps({"build": "b", **towers, "tasks": tasks})

    def test_parse(self) -> None:
        users = tandem_build.Tower(2, 3)
        self.assertEqual(
            tandem_build.Plan.parse(self.plan([0, 1])), tandem_build.Plan("b", (users, users), 5)
        )

    def test_numbers(self) -> None:
        with self.assertRaisesRegex(ValueError, r"numbered \[0, 2\]"):
            tandem_build.Plan.parse(self.plan([0, 2]))


class ArgumentsTest(unittest.TestCase):
    """The command line is that of the job, and after -- that of the plan."""

    def test_split(self) -> None:
        got = tandem_build.arguments(["--store", "s3://b/x", "--", "--apps", "a", "--shards", "2"])
        self.assertEqual((got.store, got.plan), ("s3://b/x", ["--apps", "a", "--shards", "2"]))

    def test_paths(self) -> None:
        got = tandem_build.arguments(["--store", "store", "--tandem", "bin/tandem", "--", "--apps", "a"])
        self.assertEqual((got.store, got.tandem), (os.path.abspath("store"), os.path.abspath("bin/tandem")))


class JobTest(unittest.TestCase):
    """What Spark does with steps that end well, fail, and fail for good."""

    @classmethod
    def setUpClass(cls) -> None:
        os.environ.update(check.environment())
        cls.local = tempfile.mkdtemp()
        builder = SparkSession.builder.master("local-cluster[2,1,1024]")
        settings = {"ui.enabled": "false", "ui.showConsoleProgress": "false", "local.dir": cls.local}
        for name, value in settings.items():
            builder = builder.config(f"spark.{name}", value)
        cls.spark = builder.getOrCreate()
        cls.spark.sparkContext.setLogLevel("OFF")
        cls.spark.sparkContext.addPyFile(str(HERE / "tandem_build.py"))

    @classmethod
    def tearDownClass(cls) -> None:
        cls.spark.stop()
        shutil.rmtree(cls.local)

    def setUp(self) -> None:
        self.store = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.store)

    def job(
        self, codes: dict[str, list[int]] | None = None, seconds: dict[str, int] | None = None
    ) -> tandem_build.Job:
        """Returns a job in which steps exit with codes, one after the other, and take long."""
        plan = {
            "tasks": TASKS,
            "rows": ROWS,
            "shards": SHARDS,
            "codes": codes or {},
            "seconds": seconds or {},
        }
        (self.store / "stub.json").write_text(json.dumps(plan))
        program = self.store / "stub"
        program.write_text(f"#!{sys.executable}\n{(HERE / 'testdata' / 'stub.py').read_text()}")
        program.chmod(0o755)
        tandem = tandem_build.Tandem(str(program), ("--store", str(self.store)), os.getcwd())
        with tandem_build.running(tandem, "plan", stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            parsed = tandem_build.Plan.parse(process.stdout.read().decode())
        return tandem_build.Job(self.spark, tandem, parsed, 1)

    def times(self, what: str) -> int:
        """Returns how many lines of the log begin with words."""
        return sum(line.startswith(f"{what} ") for line in (self.store / "log").read_text().splitlines())

    def assert_whole(self) -> None:
        """Asserts that each shard was given its records, all of them, once, in order."""
        want: dict[int, list[str]] = {i: [] for i in range(sum(SHARDS))}
        for task in range(TASKS):
            tower = tandem_build.Tower(SHARDS[task % 2], task % 2 * SHARDS[0])
            for seq in range(ROWS):
                record = f"{task}/{seq}".encode()
                (shard,) = tandem_build.shards_of(pa.array([record]), tower).to_pylist()
                want[shard].append(f"{task} {seq} {record.hex()}00ff")
        self.assertIn([], want.values(), "no shard without records")
        for shard, lines in want.items():
            with self.subTest(shard=shard):
                self.assertEqual((self.store / f"shard-{shard}").read_text().splitlines(), lines)

    def assert_ended(self) -> None:
        """Asserts that no process of a step is left, once Spark has killed its tasks."""
        deadline = time.monotonic() + 60
        while left := [pid for pid in self.pids() if self.alive(pid)]:
            self.assertLess(time.monotonic(), deadline, left)
            time.sleep(0.1)

    def pids(self) -> list[int]:
        return [int(line.split()[-1]) for line in (self.store / "log").read_text().splitlines()]

    def alive(self, pid: int) -> bool:
        try:
            return str(self.store).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def test_well(self) -> None:
        job = self.job()
        job.shards()
        self.assertEqual(job.commit(), "a report\nthe digest\n")
        self.assert_whole()
        self.assertEqual(self.times("begin"), 1 + TASKS + sum(SHARDS) + 1)

    def test_tried_again(self) -> None:
        """Steps that fail for now are tried again, and what they have written is not used."""
        job = self.job({"partition 2": [1, 1], "shard 3": [1], "commit": [1]})
        job.shards()
        self.assertEqual(job.commit(), "a report\nthe digest\n")
        self.assert_whole()
        self.assertEqual([self.times(f"begin {s}") for s in ("partition 2", "shard 3", "commit")], [3, 2, 2])

    def assert_fails(self, call: Callable[[], object], step: str, name: str, code: int) -> None:
        """Asserts that a failure ends the job, with what the step said."""
        with self.assertRaises(tandem_build.StepError) as raised:
            call()
        said = f"tandem build {step}: exit code {code}\n{name}: a note\n{name}: fails by order"
        self.assertEqual(str(raised.exception), said)
        self.assertTrue(raised.exception.final)
        self.assertEqual(self.times(f"begin {name}"), 1, "it was tried again")
        self.assert_ended()

    def test_refused_input(self) -> None:
        """A failure of a task that is final ends all others at once."""
        job = self.job({"partition 1": [5]}, {"partition 0": 300})
        self.assert_fails(job.shards, "partition", "partition 1", 5)
        self.assertEqual([self.times(w) for w in ("begin shard", "end partition 0")], [0, 0])

    def test_refused_shard(self) -> None:
        job = self.job({"shard 1": [5]}, {"shard 0": 300})
        self.assert_fails(job.shards, "shard", "shard 1", 5)
        self.assertEqual(self.times("end shard 0"), 0)

    def test_unfit(self) -> None:
        self.assert_fails(self.job({"commit": [3]}).commit, "commit", "commit", 3)

    def test_wrong_use(self) -> None:
        with self.assertRaisesRegex(tandem_build.StepError, "tandem build plan: exit code 2"):
            self.job({"plan": [2]})


if __name__ == "__main__":
    unittest.main()
