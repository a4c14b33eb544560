// Package overlay lays what has changed since a snapshot was built over its towers: it makes,
// of a snapshot and a [live.State], towers that answer with all of it, and goes on from one
// position to the next in a time that depends on what has changed, not on what there is.
//
// # What lies over a tower
//
// A row of the snapshot is dead if it is taken down, removed, replaced or forgotten; the graph
// is walked through it, and it is not returned ([shard.Overlay]). A row whose attributes were
// set has others, which filters, segments and limits see: they are evaluated over the rows of
// the snapshot, and then, for the rows that have changed, over those alone. What was upserted is in
// runs: small shards in memory, without a graph, scanned exactly by the same kernels, filters
// and scores, each a further [shard.Part] of the tower. Runs are merged as in a log-structured
// merge tree (O'Neil et al., "The log-structured merge-tree", Acta Informatica 33, 1996), so
// there are few of them, and a row is written few times.
//
// # Which events count
//
// Those after the position that the snapshot's inputs reflect (its manifest says it); of
// earlier ones takedowns, windows and forgotten users. Upserts count in snapshots of their
// model version. What does not fit a snapshot, such as a value of another type than its schema
// has, does not count in it, and is told ([Status].Misfits): an attribute that was set to such
// a value a row does not have.
package overlay
