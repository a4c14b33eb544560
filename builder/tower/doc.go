// Package tower reads and writes towers as files: one entity kind's embeddings,
// with ids and, in Parquet, attributes.
//
// [Open] chooses a [Reader] by the files' first bytes: Parquet, NumPy .npy, or, by their
// extensions, big-ann .fbin, .u8bin and .i8bin; the latter with id files beside them. Package
// builder/input finds and opens files. [OpenAttributes] reads attributes from JSON Lines; they
// are joined to a tower's rows by id, which is the caller's job. [ReadInteractions] reads what
// users did. [CreateParquet] writes a tower. Package builder/tower/hnswexport reads the graphs
// that coder/hnsw exports.
//
// Reading is streaming and only decodes. A Row may have a vector of any length,
// with NaN in it, under an id that is empty or seen before: package builder,
// the caller, judges rows. What cannot be decoded at all is an error that ends
// the input; what cannot be represented in one row (an unsigned integer above
// the int64 range, a string where the attribute is a number) is a [Problem] of
// that row, for the caller to count, name and reject. What is left out without
// being wrong is counted in a reader's Notes.
//
// A reader never trusts its input: a hostile header gives an error, not a
// panic, and lengths are checked against the size of the file before memory is
// taken for them. Memory is a page and a dictionary for each Parquet column that
// is read, and one buffer for other formats, whatever the size of the file.
//
// The package has more than 3,000 lines because there are many formats, each with the
// liberties that its writers take, and all end in the same rows: values are converted,
// attributes typed, and problems and notes worded in one way, whatever they came from.
package tower
