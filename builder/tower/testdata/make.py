"""Writes small towers with pyarrow, DuckDB and polars: each codec, page version, encoding
and kind of list that these have. TestForeignFiles reads them.

    python3 -m pip install pyarrow duckdb polars
    python3 make.py foreign
    python3 expect.py foreign

make.rs, make.go.txt and make.java are the same for arrow-rs, arrow-go and Spark.
"""

import datetime
import decimal
import pathlib
import struct
import sys
import uuid

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, DIM = 30, 4
out = pathlib.Path(sys.argv[1])


def number(i, j):
    return (((i * 7 + j * 13 + 5) % 101) - 50) / 32


def some(i, value):
    return value if i % 6 != 2 else None


vectors = [None if i == 11 else [number(i, j) for j in range(DIM)] for i in range(ROWS)]
genres = [[None, [], ["a", None], [f"g{i % 3}", "b"], ["c"]][i % 5] for i in range(ROWS)]
ids = [f"app-{i}" for i in range(ROWS)]
utc = datetime.timezone.utc
whens = [some(i, datetime.datetime(2026, 1, 1, tzinfo=utc) + datetime.timedelta(microseconds=i * 1_234_567)) for i in range(ROWS)]

plain = {
    "app_id": pa.array(ids),
    "embedding": pa.array(vectors, pa.list_(pa.float32())),
    "genres": pa.array(genres, pa.list_(pa.string())),
    "developer": pa.array([f"dev{i % 3}" if i % 4 else None for i in range(ROWS)]).dictionary_encode(),
    "free": pa.array([some(i, i % 3 == 0) for i in range(ROWS)]),
    "age": pa.array([some(i, i * 1_000_003 - 9_000_000) for i in range(ROWS)], pa.int64()),
    "price": pa.array([some(i, i / 7) for i in range(ROWS)], pa.float64()),
    "rating": pa.array([some(i, i / 7) for i in range(ROWS)], pa.float32()),
    "when": pa.array(whens, pa.timestamp("us", "UTC")),
}

kinds = dict(plain) | {
    "large": pa.array(vectors, pa.large_list(pa.float64())),
    "fixed": pa.array([v if i % 7 != 3 else None for i, v in enumerate(vectors)], pa.list_(pa.float32(), DIM)),
    "view": pa.array(vectors, pa.list_view(pa.float32())),
    "halves": pa.array(vectors, pa.list_(pa.float16())),
    "bytes": pa.array([v and [int(x * 60) for x in v] for v in vectors], pa.list_(pa.int8())),
    "unsigned": pa.array([v and [int(x * 60) + 100 for x in v] for v in vectors], pa.list_(pa.uint8())),
    "longs": pa.array([v and [int(x * 60) for x in v] for v in vectors], pa.list_(pa.int64())),
    "cents": pa.array([v and [decimal.Decimal(int(x * 32)) / 100 for x in v] for v in vectors], pa.list_(pa.decimal128(9, 2))),
    "tags": pa.array(genres, pa.large_list(pa.large_string())),
    "packed": pa.array([v and struct.pack(f"<{DIM}f", *v) for v in vectors], pa.binary()),
    "packed_fixed": pa.array([v and struct.pack(f"<{DIM}f", *v) for v in vectors], pa.binary(4 * DIM)),
    "json": pa.array([v and str(v) for v in vectors]),
    "nested": pa.array([{"model": "m", "values": v} if i != 5 else None for i, v in enumerate(vectors)],
                       pa.struct([("model", pa.string()), ("values", pa.list_(pa.float32()))])),
    "spark": pa.array([v and ({"type": 1, "size": None, "indices": None, "values": v} if i % 2 else
                              {"type": 0, "size": DIM, "indices": [0, 2], "values": [v[0], v[2]]}) for i, v in enumerate(vectors)],
                      pa.struct([pa.field("type", pa.int8(), False), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))])),
    **{f"emb_{j}": pa.array([v and v[j] for v in vectors], pa.float32()) for j in range(DIM)},
    "small": pa.array([some(i, i - 15) for i in range(ROWS)], pa.int8()),
    "big": pa.array([some(i, i * 7_777_777_777) for i in range(ROWS)], pa.uint64()),
    "half": pa.array([some(i, i / 8) for i in range(ROWS)], pa.float16()),
    "money": pa.array([some(i, decimal.Decimal(i * 12345 - 100_000) / 100) for i in range(ROWS)], pa.decimal128(12, 2)),
    "whole": pa.array([some(i, decimal.Decimal(i * 12345 - 100_000)) for i in range(ROWS)], pa.decimal128(18, 0)),
    "uuid": pa.array([some(i, uuid.UUID(int=i * 2**100 + i).bytes) for i in range(ROWS)], pa.uuid()),
    "binary": pa.array([some(i, f"b{i}".encode()) for i in range(ROWS)], pa.binary()),
    "string_view": pa.array([some(i, "v" * i) for i in range(ROWS)], pa.string_view()),
    "millis": pa.array(whens, pa.timestamp("ms", "UTC")),
    "nanos": pa.array(whens, pa.timestamp("ns")),
    "day": pa.array([w and w.date() for w in whens], pa.date32()),
    "nothing": pa.nulls(ROWS),
}


def write(name, columns, **options):
    pq.write_table(pa.table(columns), out / f"{name}.parquet", row_group_size=17, **options)


for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4"):
    for version in ("1.0", "2.0"):
        write(f"pyarrow-{codec}-v{version[0]}", plain, compression=codec, data_page_version=version, write_page_checksum=codec == "gzip")
write("pyarrow-kinds", kinds, compression="zstd", compression_level=9)
write("pyarrow-spark-flavor", {k: v for k, v in plain.items() if k != "developer"}, flavor="spark", use_deprecated_int96_timestamps=True)
write("pyarrow-item-names", plain, use_compliant_nested_type=False, version="1.0", compression="none")
encodings = {
    "app_id": "DELTA_BYTE_ARRAY", "developer": "DELTA_LENGTH_BYTE_ARRAY", "free": "RLE", "age": "DELTA_BINARY_PACKED",
    "price": "BYTE_STREAM_SPLIT", "rating": "BYTE_STREAM_SPLIT", "when": "DELTA_BINARY_PACKED", "embedding.list.element": "BYTE_STREAM_SPLIT",
    "genres.list.element": "DELTA_LENGTH_BYTE_ARRAY",
}
for version in ("1.0", "2.0"):
    write(f"pyarrow-encodings-v{version[0]}", plain | {"developer": plain["developer"].cast(pa.string())}, compression="snappy",
          data_page_version=version, use_dictionary=False, column_encoding=encodings)
# A few rows, for damage byte by byte.
small = pa.table({k: plain[k].slice(0, 6) for k in ("app_id", "embedding", "genres", "age", "free")})
for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4"):
    version = "2.0" if codec in ("none", "zstd") else "1.0"
    pq.write_table(small, out / f"small-{codec}.parquet", compression=codec, data_page_version=version, write_statistics=False, store_schema=False)
pq.write_table(small, out / "small-delta.parquet", compression="none", use_dictionary=False, write_statistics=False, store_schema=False,
               write_page_checksum=True, column_encoding={"app_id": "DELTA_BYTE_ARRAY", "age": "DELTA_BINARY_PACKED", "genres.list.element": "DELTA_LENGTH_BYTE_ARRAY", "free": "RLE"})
# pages of a few rows
write("pyarrow-pages", plain, compression="none", data_page_size=64, write_batch_size=3, write_page_index=True)

# Vectors that are null at first, and one row a row group.
pq.write_table(pa.table({"app_id": ids, "embedding": pa.array([None] * 20 + vectors[:10], pa.list_(pa.float32()))}),
               out / "pyarrow-late.parquet", row_group_size=1, compression="none")

con = duckdb.connect()
con.register("plain", pa.table(plain | {"developer": plain["developer"].cast(pa.string())}))
con.register("kinds", pa.table({k: kinds[k] for k in kinds if k not in ("cents", "halves", "half", "nothing", "spark", "developer", "uuid", "view")}))
for codec in ("uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4", "lz4_raw"):
    for version in ("V1", "V2"):
        con.execute(f"copy plain to '{out}/duckdb-{codec}-{version.lower()}.parquet' (format parquet, codec '{codec}', parquet_version '{version}', row_group_size 17)")
con.execute(f"""copy (select *, embedding::float[{DIM}] as array_, money::decimal(9,2) as narrow, app_id::varchar as text,
    embedding::decimal(9,3)[] as literal, age::hugeint as huge, uuid() is null as never, ('00000000-0000-0000-0000-' || lpad(hex(rowid), 12, '0'))::uuid as uuid,
    day as date_ from (select row_number() over () as rowid, * from kinds)) to '{out}/duckdb-kinds.parquet' (format parquet, codec 'zstd')""")

frame = polars.DataFrame({
    "app_id": ids,
    "embedding": polars.Series(vectors, dtype=polars.List(polars.Float32)),
    "array": polars.Series([v if i % 7 != 3 else None for i, v in enumerate(vectors)], dtype=polars.Array(polars.Float64, DIM)),
    "genres": polars.Series(genres, dtype=polars.List(polars.String)),
    "developer": polars.Series([f"dev{i % 3}" if i % 4 else None for i in range(ROWS)], dtype=polars.Categorical),
    "free": [some(i, i % 3 == 0) for i in range(ROWS)],
    "age": [some(i, i * 1_000_003 - 9_000_000) for i in range(ROWS)],
    "price": [some(i, i / 7) for i in range(ROWS)],
    "rating": polars.Series([some(i, i / 7) for i in range(ROWS)], dtype=polars.Float32),
    "money": polars.Series([some(i, decimal.Decimal(i * 12345 - 100_000) / 100) for i in range(ROWS)], dtype=polars.Decimal(12, 2)),
    "when": whens,
    "binary": [some(i, f"b{i}".encode()) for i in range(ROWS)],
})
for codec in ("uncompressed", "snappy", "gzip", "brotli", "zstd", "lz4"):
    frame.write_parquet(out / f"polars-{codec}.parquet", compression=codec, row_group_size=17)
frame.write_parquet(out / "polars-pages.parquet", compression="lz4", data_page_size=64)
