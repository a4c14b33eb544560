// Package parquetfile reads and writes Parquet files, over arrow-go, without trusting
// what it reads. Package builder/tower reads and writes towers with it, package
// shard/querylog recorded queries.
//
// [Open] reads a file's footer. A [File] gives a [Column] for each leaf of each row
// group: a cursor over its values with their definition and repetition levels, in
// batches of a bounded size. Pages are read one at a time, so that memory is a page and a
// dictionary for each open column, whatever the size of the row group.
//
// What a file says of itself is checked before anything is allocated by it: the footer's
// lists and schema, each page header's sizes against what the compressed bytes can hold,
// the headers of encoded values against the page, and, where a page has a checksum, the
// checksum. A column must have as many levels, values and bytes as its metadata says, and
// a file may only make so much of each of its bytes. What does not fit is an error of class
// [ErrDamaged]; it never panics.
//
// [Create] writes a file from whole columns of values and levels.
package parquetfile
