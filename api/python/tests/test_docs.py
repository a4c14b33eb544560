"""Runs the programs in Python of the pages of docs/, as they stand, with a real command."""

import ast
import contextlib
import io
import os
import re
import tempfile
import unittest
from pathlib import Path

from tandem import pipeline

PAGES = Path(__file__).resolve().parents[3] / "docs"


def programs(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)


class Docs(unittest.TestCase):
    def test_a_notebook_writes_towers_and_builds_them(self) -> None:
        (towers,) = programs("tutorial.md")
        build = programs("pipelines.md")[0]
        binary = os.environ["TANDEM_BIN"]
        before = os.getcwd(), os.environ["PATH"]
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            os.chdir(folder)
            os.environ["PATH"] = f"{os.path.dirname(binary)}:{before[1]}"
            try:
                exec(compile(towers, "tutorial.md", "exec"), {})
                found: dict[str, object] = {}
                exec(compile(build, "pipelines.md", "exec"), found)
            finally:
                os.chdir(before[0])
                os.environ["PATH"] = before[1]
        report = found["report"]
        assert isinstance(report, dict)
        self.assertRegex(report["snapshot"], "^[0-9a-f]{64}$")

    def test_schedulers_call_what_there_is(self) -> None:
        """Airflow and Dagster are not here: their programs are parsed."""
        list_ = programs("pipelines.md")
        self.assertEqual(len(list_), 3)
        for program in list_:
            used = {n.attr for n in ast.walk(ast.parse(program)) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "pipeline"}
            self.assertTrue(used)
            for name in used:
                self.assertTrue(hasattr(pipeline, name), f"pipeline.{name}")


if __name__ == "__main__":
    unittest.main()
