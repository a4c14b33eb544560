"""Writes a tower as Parquet that a build reads, from what a training run has in memory.

pandas, polars, pyarrow, numpy and torch are taken by what they can do, and only pyarrow is imported.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RUN_KEY = "tandem_run"
"""The key of the metadata of a file that names its training run."""

_MAX_ID = 256
_MAX_RUN = 256
_ACCEPTED = "string, list of string, bool, int, float, timestamp"


_UNLIKE = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)


class TowerError(ValueError):
    """A tower that cannot be written: the text names the column, the row and the value."""


def write_tower(
    path: str | os.PathLike[str],
    ids: Any,
    embeddings: Any,
    *,
    kind: str,
    attributes: Mapping[str, Any] | None = None,
    run: str | None = None,
) -> int:
    """Writes a tower, and returns how many rows it has.

    ids are strings, each once: a list, or a column of pandas, polars or pyarrow. embeddings are as many vectors of
    one dimension: an array of two dimensions (numpy, torch, on whatever device), a column of lists, or a list of
    them; they are stored as float32. kind is "app" or "user", and names the column of ids. attributes are columns by
    name. run names the training run: a build compares that of both towers.

    The file is there whole, or not at all: it is written beside its place, synced and renamed.
    """
    if kind not in ("app", "user"):
        raise TowerError(f"kind is {kind!r:.200}; accepted: 'app', 'user'")
    column = _ids(ids)
    vectors = _embeddings(embeddings, len(column))
    fields: dict[str, Any] = {f"{kind}_id": column, "embedding": vectors}
    for name, values in (attributes or {}).items():
        if not isinstance(name, str) or name in fields or name == RUN_KEY:
            raise TowerError(f"attribute {name!r:.200}: accepted: strings that are none of {', '.join([*list(fields)[:2], RUN_KEY])}")
        fields[name] = _attribute(name, values, len(column))
    table = pa.table(fields)
    if run is not None:
        if not isinstance(run, str) or not run.strip() or len(run.encode()) > _MAX_RUN or not run.isprintable():
            raise TowerError(f"run is {run!r:.200}; accepted: 1 to {_MAX_RUN} bytes of printable text")
        table = table.replace_schema_metadata({RUN_KEY: run})
    _write(table, os.fspath(path))
    return len(column)


def write_frame(
    path: str | os.PathLike[str],
    frame: Any,
    *,
    kind: str,
    id_column: str | None = None,
    embedding_column: str = "embedding",
    attributes: Iterable[str] | None = None,
    run: str | None = None,
) -> int:
    """Writes a tower that is a frame of pandas or polars, or a table of pyarrow; see write_tower.

    attributes are the columns to write as such; by default all others.
    """
    id_column = id_column or f"{kind}_id"
    names = [str(n) for n in (frame.column_names if isinstance(frame, pa.Table) else frame.columns)]
    for name in (id_column, embedding_column):
        if name not in names:
            raise TowerError(f"column {name!r:.200} is missing; there are: {', '.join(names)[:500]}")
    rest = [n for n in names if n not in (id_column, embedding_column)]
    if attributes is not None:
        chosen = list(attributes)
        for name in chosen:
            if name not in rest:
                raise TowerError(f"attribute {name!r:.200} is no column; there are: {', '.join(rest)[:500]}")
        rest = chosen
    return write_tower(path, frame[id_column], frame[embedding_column], kind=kind, attributes={n: frame[n] for n in rest}, run=run)


def _arrow(values: Any) -> pa.Array:
    """Returns a column of whatever library as an array of pyarrow."""
    if hasattr(values, "to_arrow"):  # polars
        values = values.to_arrow()
    elif hasattr(values, "__arrow_array__") or isinstance(values, (pa.Array, pa.ChunkedArray)):
        pass
    elif hasattr(values, "to_numpy") and hasattr(values, "isna"):  # pandas: what is absent is absent
        values = pa.Array.from_pandas(values)
    elif hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # it has no chunks
            values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if isinstance(values, pa.Array):
        return values
    if not hasattr(values, "dtype"):
        values = list(values)
    return pa.array(values)


def _ids(values: Any) -> pa.Array:
    try:
        array = _arrow(values)
    except _UNLIKE as e:
        raise TowerError(f"ids: they are not all strings: {e!s:.200}") from e
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        raise TowerError(f"ids are of type {array.type}; accepted: strings. Integers are ids as text: convert them where they are whole, before a float has rounded one")
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type)):
        raise TowerError(f"ids are of type {array.type}; accepted: strings")
    array = array.cast(pa.string()) if not pa.types.is_large_string(array.type) else array
    if len(array) == 0:
        raise TowerError("ids: there are none")
    _no_nulls("ids", array)
    sizes = pc.binary_length(array)
    bad = pc.or_(pc.less(sizes, 1), pc.greater(sizes, _MAX_ID))
    row = _first(bad)
    if row is not None:
        raise TowerError(f"ids[{row}] has {sizes[row].as_py()} bytes; accepted: 1 to {_MAX_ID}")
    counts = pc.value_counts(array)
    twice = pc.greater(counts.field("counts"), 1)
    at = _first(twice)
    if at is not None:
        raise TowerError(f"id {counts.field('values')[at].as_py()!r:.300} is there {counts.field('counts')[at].as_py()} times; accepted: once")
    return array


def _embeddings(values: Any, rows: int) -> pa.Array:
    if hasattr(values, "detach"):  # torch: bfloat16 is none of numpy's
        values = values.detach().cpu().float().numpy()
    if getattr(values, "ndim", None) == 2 and hasattr(values, "dtype"):
        if len(values) != rows:
            raise TowerError(f"embeddings has {len(values)} rows, and there are {rows} ids")
        dim = int(values.shape[1])
        if str(values.dtype)[:3] not in ("flo", "int", "uin"):
            raise TowerError(f"embeddings are of type {values.dtype}; accepted: numbers")
        flat = pa.array(values.reshape(-1))
    else:
        try:
            array = _arrow(values)
        except _UNLIKE as e:
            raise TowerError(f"embeddings: they are no lists of numbers: {e!s:.200}") from e
        t = array.type
        if not (pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t)):
            raise TowerError(f"embeddings are of type {t}; accepted: an array of two dimensions, or a list of numbers for each row")
        if not (pa.types.is_floating(t.value_type) or pa.types.is_integer(t.value_type)):
            raise TowerError(f"embeddings are lists of {t.value_type}; accepted: of numbers")
        if len(array) != rows:
            raise TowerError(f"embeddings has {len(array)} rows, and there are {rows} ids")
        _no_nulls("embeddings", array)
        lengths = pc.list_value_length(array)
        dim = int(lengths[0].as_py())
        other = _first(pc.not_equal(lengths, dim))
        if other is not None:
            raise TowerError(f"embeddings[{other}] has {lengths[other].as_py()} numbers, and embeddings[0] has {dim}; accepted: one dimension for all")
        flat = array.flatten()
    if dim == 0:
        raise TowerError("embeddings have no dimensions")
    if flat.null_count:
        i = _first(flat.is_null())
        raise TowerError(f"embeddings[{(i or 0) // dim}][{(i or 0) % dim}] is absent; accepted: finite numbers")
    flat = flat.cast(pa.float32(), safe=False)  # what a float32 cannot hold becomes infinite, and is found
    i = _first(pc.invert(pc.is_finite(flat)))
    if i is not None:
        raise TowerError(f"embeddings[{i // dim}][{i % dim}] is {flat[i].as_py()}; accepted: finite numbers of float32")
    return pa.FixedSizeListArray.from_arrays(flat, dim)


def _attribute(name: str, values: Any, rows: int) -> pa.Array:
    try:
        array = _arrow(values)
    except _UNLIKE as e:
        raise TowerError(f"attribute {name!r:.200}: its values are not of one type: {e!s:.200}; accepted: {_ACCEPTED}") from e
    if len(array) != rows:
        raise TowerError(f"attribute {name!r:.200} has {len(array)} rows, and there are {rows} ids")
    if pa.types.is_dictionary(array.type):  # a categorical
        array = array.dictionary_decode()
    t = array.type
    if pa.types.is_string_view(t):
        return array.cast(pa.string())
    if pa.types.is_list(t) or pa.types.is_large_list(t):
        if pa.types.is_string(t.value_type) or pa.types.is_large_string(t.value_type):
            return array
        if pa.types.is_string_view(t.value_type):
            return array.cast(pa.large_list(pa.string()))
    elif pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_boolean(t) or pa.types.is_timestamp(t) or pa.types.is_date(t):
        return array
    elif pa.types.is_integer(t):
        if t == pa.uint64() and len(array) > array.null_count and pc.max(array).as_py() > 2**63 - 1:
            raise TowerError(f"attribute {name!r:.200} has {pc.max(array).as_py()}; accepted: integers of 64 bits with a sign")
        return array.cast(pa.int64())
    elif pa.types.is_floating(t):
        i = _first(pc.is_inf(array))
        if i is not None:
            raise TowerError(f"attribute {name!r:.200}, row {i}, is {array[i].as_py()}; accepted: finite numbers, or none")
        i = _first(pc.is_nan(array))
        if i is not None:
            raise TowerError(f"attribute {name!r:.200}, row {i}, is NaN; accepted: finite numbers, or none (None, not NaN)")
        return array
    raise TowerError(f"attribute {name!r:.200} is of type {t}; accepted: {_ACCEPTED}")


def _no_nulls(name: str, array: pa.Array) -> None:
    if array.null_count:
        raise TowerError(f"{name}[{_first(array.is_null())}] is absent")


def _first(flags: pa.Array) -> int | None:
    """Returns the place of the first that is true."""
    i = pc.index(flags, pa.scalar(True)).as_py()
    return None if i < 0 else int(i)


def _write(table: pa.Table, path: str) -> None:
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as f:
            pq.write_table(table, f, compression="zstd", row_group_size=64 << 10)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
