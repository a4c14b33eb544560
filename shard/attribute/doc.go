// Package attribute stores the typed attributes of one shard's rows and answers
// the questions that eligibility filters ask of them.
//
// A [Schema] names a tower's attributes and their types; a [Value] is one row's
// attribute. A [Writer] collects the values of a shard's rows and writes them as
// sections of the shard file; a [Table] opens those sections and uses them in
// place. Each attribute is stored twice: by row, to return it with a candidate,
// and by value, as roaring bitmaps or sorted numbers, to filter by it. Package
// shard opens tables, package eligibility asks them. The bytes are drawn in
// ../format.md.
package attribute
