"""Joined sets, as readers of Parquet that are in use take them: without flags, and alike."""

import importlib.util
import pathlib
import unittest

PART = pathlib.Path(__file__).parents[3] / "shard/joined/testdata/part-v1.parquet"


def needs(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return unittest.skipIf(missing, f"a joined set was not read: {', '.join(missing)} is not here")


def check(test, rows):
    """Rows are dicts of Python's own values."""
    test.assertEqual([row["role"] for row in rows], ["shown", "shown", "next", "empty"])
    test.assertEqual([row["rank"] for row in rows], [1, 2, 3, 0])
    test.assertEqual([row["opens"] for row in rows], [2, 0, 0, 0])
    test.assertEqual([row["play_time"] for row in rows], [0, 64.5, 0, 0])
    test.assertEqual(rows[1]["team"], "challenger")
    test.assertEqual(list(map(dict, rows[0]["own"])), [
        {"kind": "liked", "count": 1, "value": 0.0},
        {"kind": "shared", "count": 2, "value": 3.5},
    ])
    test.assertEqual(list(rows[1]["own"]), [])
    test.assertEqual(str(rows[0]["time"])[:26], "2026-11-25 12:00:00.123456")


class Joined(unittest.TestCase):
    @needs("pyarrow")
    def test_pyarrow(self):
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(PART).to_pylist()
        check(self, rows)
        self.assertEqual([row["propensity"] for row in rows], [0.25, None, None, None])
        self.assertIsNone(rows[1]["first_open"])

    @needs("pandas", "pyarrow")
    def test_pandas(self):
        import pandas

        check(self, pandas.read_parquet(PART).to_dict("records"))

    @needs("polars")
    def test_polars(self):
        import polars

        rows = polars.read_parquet(PART).to_dicts()
        check(self, rows)
        self.assertEqual([row["propensity"] for row in rows], [0.25, None, None, None])

    @needs("duckdb")
    def test_duckdb(self):
        import duckdb

        with duckdb.connect() as db:
            cursor = db.execute("SET TimeZone = 'UTC'").execute("SELECT * FROM read_parquet($1)", [str(PART)])
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row)) for row in cursor.fetchall()]
        check(self, rows)


if __name__ == "__main__":
    unittest.main()
