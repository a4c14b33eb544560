"""Writes what DuckDB reads of Parquet files, for TestColumnsOfFiles to compare with.

    python3 -m pip install duckdb
    python3 expect.py FOLDER...

Beside each FOLDER it writes FOLDER.json: an object that maps the name of each file to
{"error": TEXT} where DuckDB refuses it, or to {"rows": N, "columns": {NAME: [VALUE, ...]}}
with the columns of types that attributes can have. A value is null or a text:

    integers, decimals of scale 0    their digits
    other decimals, DOUBLE, FLOAT    the 64 bits of the double, in hexadecimal
    BOOLEAN                          true or false
    VARCHAR, UUID                    the text
    BLOB                             x and the bytes in hexadecimal
    DATE, TIMESTAMP of any kind      microseconds since 1970, and n and nanoseconds for those in them
    VARCHAR[], BLOB[]                a list of texts: the elements that are not null
    lists of numbers                 a list of texts, as doubles in hexadecimal; nan for null
"""

import decimal
import json
import pathlib
import struct
import sys

import duckdb

INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
NUMBERS = INTEGERS | {"FLOAT", "DOUBLE"}


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def expression(name, kind):
    """Returns SQL for a column, None where no attribute can have its type."""
    q = quoted(name)
    if kind in INTEGERS or kind in ("BOOLEAN", "VARCHAR", "BLOB", "UUID", "FLOAT", "DOUBLE", "VARCHAR[]", "BLOB[]", "JSON"):
        return q
    if kind.endswith("[]") and (kind[:-2] in NUMBERS or kind.startswith("DECIMAL")) and kind.count("[") == 1:
        return f"{q}::DOUBLE[]"
    if kind.startswith("DECIMAL") and not kind.endswith("]"):
        return q
    if kind == "DATE":
        return f"epoch_us({q}::TIMESTAMP)"
    if kind == "TIMESTAMP_NS":
        return f"'n' || epoch_ns({q})"
    if kind.startswith("TIMESTAMP") and not kind.endswith("]"):
        return f"epoch_us({q})"
    return None


def text(value, kind):
    if value is None:
        return None
    if isinstance(value, list) and kind[:-2] not in ("VARCHAR", "BLOB"):
        return ["nan" if v is None else struct.pack(">d", v).hex() for v in value]
    if isinstance(value, list):
        return [text(v, kind[:-2]) for v in value if v is not None]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, decimal.Decimal):
        if kind.endswith(",0)"):
            return str(int(value))
        value = float(value)
    if isinstance(value, float):
        return struct.pack(">d", value).hex()
    if isinstance(value, (bytes, bytearray)):
        return "x" + bytes(value).hex()
    return str(value)


def read(path):
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    file = "read_parquet('" + str(path).replace("'", "''") + "')"
    try:
        columns = {}
        kinds = [(row[0], row[1]) for row in con.execute(f"describe select * from {file}").fetchall()]
        chosen = [(name, kind) for name, kind in kinds if expression(name, kind)]
        rows = con.execute(f"select count(*) from {file}").fetchone()[0]
        for name, kind in chosen:
            found = con.execute(f"select {expression(name, kind)} from {file}").fetchall()
            columns[name] = [text(row[0], kind) for row in found]
            rows = len(found)
        return {"rows": rows, "columns": columns}
    except Exception as error:
        return {"error": str(error)[:300]}


for folder in sys.argv[1:]:
    folder = pathlib.Path(folder)
    out = {p.relative_to(folder).as_posix(): read(p) for p in sorted(folder.rglob("*.parquet*")) if p.is_file()}
    folder.with_suffix(".json").write_text(json.dumps(out, indent=0, ensure_ascii=True) + "\n")
    print(folder, len(out), "files,", sum("error" in e for e in out.values()), "refused")
