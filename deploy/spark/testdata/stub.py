"""A program in place of tandem, for tests of what Spark does with its steps.

Its store is a folder: `stub.json` says how many tasks and shards there are, and how often a
step fails first, and with which exit code; `log` gets a line when a step begins and ends.
Records are numbers of rows; a shard writes those that it was given to a file.
"""

import json
import os
import sys
import time

import pyarrow as pa


def main() -> int:
    """Runs a step."""
    step, flags = sys.argv[2], dict(zip(sys.argv[3::2], sys.argv[4::2], strict=False))
    store = flags["--store"]
    with open(os.path.join(store, "stub.json"), encoding="utf-8") as f:
        plan = json.load(f)
    name = f"{step} {flags.get('--task', flags.get('--index', ''))}".strip()
    with open(os.path.join(store, "log"), "a+", encoding="utf-8") as log:
        log.seek(0)
        before = sum(line.startswith(f"begin {name} ") for line in log)
        log.write(f"begin {name} {os.getpid()}\n")
    print(f"{name}: a note", file=sys.stderr)
    codes = plan["codes"].get(name, [])
    code = codes[before] if before < len(codes) else 0
    work(step, flags, store, plan, code)
    if code:
        print(f"{name}: fails by order", file=sys.stderr)
        return code
    with open(os.path.join(store, "log"), "a", encoding="utf-8") as log:
        log.write(f"end {name} {os.getpid()}\n")
    return 0


def work(step: str, flags: dict[str, str], store: str, plan: dict, code: int) -> None:
    """Does what a step does before it ends."""
    if step == "plan":
        towers = [("apps", plan["shards"][0], 0), ("users", plan["shards"][1], plan["shards"][0])]
        out = {name: {"shards": shards, "first_index": first} for name, shards, first in towers}
        tasks = [{"task": i, "tower": ("apps", "users")[i % 2]} for i in range(plan["tasks"])]
        print(json.dumps({"build": "b", "tasks": tasks, **out}))
    elif step == "partition":
        task = int(flags["--task"])
        schema = pa.schema([("id", pa.binary()), ("seq", pa.int64()), ("record", pa.binary())])
        with pa.ipc.new_stream(sys.stdout.buffer, schema) as out:
            for start in range(0, plan["rows"], 100):
                rows = range(start, min(start + 100, plan["rows"]))
                ids = [f"{task}/{n}".encode() for n in rows]
                out.write_batch(
                    pa.record_batch([ids, list(rows), [i + b"\x00\xff" for i in ids]], schema=schema)
                )
                if code and start > plan["rows"] // 2:
                    break
        time.sleep(plan["seconds"].get(f"partition {task}", 0))
    elif step == "shard":
        records = pa.ipc.open_stream(sys.stdin.buffer).read_all()
        time.sleep(plan["seconds"].get(f"shard {flags['--index']}", 0))
        path = os.path.join(store, f"shard-{flags['--index']}")
        with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as f:
            for row in records.to_pylist():
                f.write(f"{row['task']} {row['seq']} {row['record'].hex()}\n")
        os.rename(f"{path}.{os.getpid()}", path)
    elif step == "commit":
        print("a report\nthe digest")


if __name__ == "__main__":
    sys.exit(main())
