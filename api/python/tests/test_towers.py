"""Writes towers, and has the command, by TANDEM_BIN, build, gate and release them."""

import datetime
import os
import tempfile
import unittest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tandem import pipeline
from tandem.towers import RUN_KEY, TowerError, write_frame, write_tower

try:
    import polars as pl
except ImportError:
    pl = None

try:
    import pandas as pd
except ImportError:
    pd = None

try:
    import numpy as np
except ImportError:
    np = None

BINARY = os.environ["TANDEM_BIN"]


class Tensor:
    """Stands for one of torch, which is too large for a test: what write_tower asks of it."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def detach(self) -> "Tensor":
        return self

    cpu = float = detach

    def numpy(self) -> object:
        return np.array(self.rows, dtype="float32")


class TowersTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "apps.parquet"

    def write(self, ids: object, embeddings: object, **more: object) -> pa.Table:
        n = write_tower(self.path, ids, embeddings, kind="app", **more)  # type: ignore[arg-type]
        table = pq.read_table(self.path)
        self.assertEqual(table.num_rows, n)
        self.assertEqual(table.schema.field("embedding").type, pa.list_(pa.float32(), 2))
        return table

    def test_lists(self) -> None:
        table = self.write(
            ["a", "b"], [[1, 2], [3, 4]], run="run-7",
            attributes={
                "name": ["x", None], "tags": [["p", "q"], []], "free": [True, False], "age": [3, 2**60], "price": [0.5, None],
                "at": [datetime.datetime(2026, 1, 1), None],
            },
        )
        self.assertEqual(table.schema.metadata[RUN_KEY.encode()], b"run-7")
        self.assertEqual(table["embedding"].to_pylist(), [[1, 2], [3, 4]])
        self.assertEqual(table["age"].to_pylist(), [3, 2**60])
        self.assertEqual(table["tags"].to_pylist(), [["p", "q"], []])
        self.assertEqual(list(self.folder.iterdir()), [self.path])

    @unittest.skipIf(pd is None, "pandas is not here")
    def test_pandas(self) -> None:
        frame = pd.DataFrame({
            "app_id": ["a", "b"], "embedding": [np.array([1.0, 2.0]), np.array([3.0, 4.0])], "price": [1.5, float("nan")],
            "maker": pd.Categorical(["x", "y"]), "at": pd.to_datetime(["2026-01-01", None]), "age": pd.array([1, None], dtype="Int64"),
            "tags": [["p"], []],
        })
        self.assertEqual(write_frame(self.path, frame, kind="app"), 2)
        table = pq.read_table(self.path)
        self.assertEqual(table["embedding"].to_pylist(), [[1, 2], [3, 4]])
        self.assertEqual([table[n].to_pylist() for n in ("price", "maker", "age", "tags")], [[1.5, None], ["x", "y"], [1, None], [["p"], []]])
        self.assertEqual(write_frame(self.path, frame[1:], kind="app", attributes=["maker"]), 1)
        with self.assertRaisesRegex(TowerError, "ids are of type int64"):
            write_frame(self.path, frame.assign(app_id=[1, 2]), kind="app")

    @unittest.skipIf(np is None, "numpy is not here")
    def test_arrays(self) -> None:
        self.assertEqual(self.write(["a"], np.array([[1, 2]], dtype="float16"))["embedding"].to_pylist(), [[1, 2]])
        self.assertEqual(self.write(["a"], np.array([[1, 2], [3, 4]], dtype="int8").T[:1])["embedding"].to_pylist(), [[1, 3]])
        self.assertEqual(self.write(["a"], Tensor([[1, 2]]))["embedding"].to_pylist(), [[1, 2]])

    @unittest.skipIf(pl is None, "polars is not here")
    def test_polars(self) -> None:
        frame = pl.DataFrame(
            {"app_id": ["a", "b"], "embedding": [[1.0, 2.0], [3.0, 4.0]], "tags": [["p"], None], "maker": ["x", "x"]},
            schema_overrides={"maker": pl.Categorical},
        )
        self.assertEqual(write_frame(self.path, frame, kind="app"), 2)
        table = pq.read_table(self.path)
        self.assertEqual(table["maker"].to_pylist(), ["x", "x"])
        self.assertEqual(table["tags"].to_pylist(), [["p"], None])
        self.assertEqual(write_frame(self.path, frame[1:], kind="app", attributes=["tags"]), 1)
        self.assertEqual(pq.read_table(self.path).to_pylist(), [{"app_id": "b", "embedding": [3, 4], "tags": None}])
        with self.assertRaisesRegex(TowerError, "column 'user_id' is missing; there are: app_id, embedding"):
            write_frame(self.path, frame, kind="user")

    def test_sliced(self) -> None:
        table = pa.table({"app_id": ["a", "b", "c"], "embedding": pa.array([[9, 9], [1, 2], [3, 4]], pa.list_(pa.float32(), 2))})
        write_frame(self.path, table.slice(1), kind="app")
        self.assertEqual(pq.read_table(self.path)["embedding"].to_pylist(), [[1, 2], [3, 4]])

    def test_refused(self) -> None:
        two = [[1, 2], [3, 4]]
        for ids, embeddings, more, want in [
            ([1, 2], two, {}, "ids are of type int64; accepted: strings"),
            ([1.0, 2.0], two, {}, "ids are of type double"),
            (["a", 2], two, {}, "ids: they are not all strings"),
            (["a", "a"], two, {}, "id 'a' is there 2 times"),
            (["a", ""], two, {}, r"ids\[1\] has 0 bytes; accepted: 1 to 256"),
            (["a", "é" * 129], two, {}, r"ids\[1\] has 258 bytes"),
            (["a", None], two, {}, r"ids\[1\] is absent"),
            ([], [], {}, "ids"),
            (["a"], two, {}, "embeddings has 2 rows, and there are 1 ids"),
            (["a", "b"], [[1, 2], [3]], {}, r"embeddings\[1\] has 1 numbers, and embeddings\[0\] has 2"),
            (["a", "b"], [[1, 2], None], {}, r"embeddings\[1\] is absent"),
            (["a", "b"], [[1, 2], [3, float("nan")]], {}, r"embeddings\[1\]\[1\] is nan"),
            (["a", "b"], [[1, 2], [1e39, 3]], {}, r"embeddings\[1\]\[0\] is inf"),
            (["a", "b"], [[1, 2], [3, None]], {}, r"embeddings\[1\]\[1\] is absent"),
            (["a", "b"], [["x"], ["y"]], {}, "embeddings are lists of string"),
            (["a", "b"], two, {"attributes": {"x": [1]}}, "attribute 'x' has 1 rows"),
            (["a", "b"], two, {"attributes": {"x": [1, "y"]}}, "attribute 'x': its values are not of one type"),
            (["a", "b"], two, {"attributes": {"x": [{"y": 1}, None]}}, "attribute 'x' is of type struct"),
            (["a", "b"], two, {"attributes": {"x": [float("inf"), 1.0]}}, "attribute 'x', row 0, is inf"),
            (["a", "b"], two, {"attributes": {"x": [0.5, float("nan")]}}, "attribute 'x', row 1, is NaN"),
            (["a", "b"], two, {"attributes": {"x": [1, 2**63]}}, "attribute 'x'"),
            (["a", "b"], two, {"attributes": {"app_id": [1, 2]}}, "attribute 'app_id'"),
            (["a", "b"], two, {"run": ""}, "run is ''"),
        ]:
            with self.subTest(want), self.assertRaisesRegex(TowerError, want) as caught:
                write_tower(self.path, ids, embeddings, kind="app", **more)
            self.assertLess(len(str(caught.exception)), 700)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_pipeline(self) -> None:
        apps, users, store = self.folder / "apps.parquet", self.folder / "users.parquet", self.folder / "store"
        vectors = [[float((i * j) % 7), float(i % 11), 1.0] for i in range(300) for j in (3,)]
        write_tower(apps, [f"app-{i}" for i in range(300)], vectors, kind="app", attributes={"price": [i / 4 for i in range(300)]}, run="one")
        write_tower(users, [f"user-{i}" for i in range(300)], vectors, kind="user", run="one")
        flags = {"store": str(store), "model": "feed", "model_version": "1", "metric": "dot", "binary": BINARY, "timeout": 300.0}
        lines: list[str] = []
        report = pipeline.build(apps=apps, users=users, log=lines.append, **flags)
        self.assertRegex(report["snapshot"], "^[0-9a-f]{64}$")
        gates = pipeline.gate(report["snapshot"], store=str(store), binary=BINARY)
        self.assertTrue(gates)
        released = pipeline.release(report["snapshot"], store=str(store), binary=BINARY, reason="a test")
        self.assertEqual(released["arms"][0]["snapshot"], report["snapshot"])

        with self.assertRaisesRegex(pipeline.UsageError, "tandem build.*exit code 2") as usage:
            pipeline.build(apps=apps, users=users, **(flags | {"metric": "manhattan"}))
        self.assertEqual(usage.exception.exit_code, 2)
        with self.assertRaises(pipeline.CommandFailed) as failed:
            pipeline.release("0" * 64, store=str(store), binary=BINARY)
        self.assertEqual(failed.exception.exit_code, 1)
        write_tower(users, [f"user-{i}" for i in range(300)], vectors, kind="user", run="two")
        with self.assertRaisesRegex(pipeline.BadInputs, 'exit code 5: .*apps are of the training run "one", users of "two"') as bad:
            pipeline.build(apps=apps, users=users, **(flags | {"model_version": "2"}))
        self.assertNotIsInstance(bad.exception, pipeline.CommandFailed)
        with self.assertRaisesRegex(pipeline.Unfit, "exit code 3: axes failed") as unfit:
            pipeline.gate("4be1", store="s", binary=self.script("echo axes failed >&2; echo '{\"gates\": 1}'; exit 3"))
        self.assertEqual(unfit.exception.report, {"gates": 1})
        with self.assertRaisesRegex(pipeline.CommandFailed, "has not ended within"):
            pipeline.run("serve", binary=self.script("trap 'exit 0' TERM; sleep 60 & wait"), timeout=0.2)
        with self.assertRaisesRegex(pipeline.CommandFailed, "no JSON object"):
            pipeline.run("x", binary=self.script("echo hello"))

    def script(self, text: str) -> str:
        path = self.folder / "script"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)


if __name__ == "__main__":
    unittest.main()
