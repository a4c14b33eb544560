// Package index is one immutable approximate nearest neighbour index over the
// rows of one shard: its construction, its bytes and its search.
//
// # Goals
//
// Inner product is the main metric, and queries come from another distribution
// than the rows. A search must find the true top k of such queries at a known
// recall, in microseconds, without allocating; an index must be the same to the
// byte whoever builds it, on any number of threads and any CPU; and a file must
// never be trusted.
//
// # Design
//
// The graph is a hierarchical navigable small world graph (Malkov and Yashunin,
// "Efficient and robust approximate nearest neighbor search using Hierarchical
// Navigable Small World graphs", TPAMI 2020, algorithms 1 to 4) with two changes.
//
// Under inner product the graph is built on Möbius-transformed vectors, x/|x|^2,
// by Euclidean distance, and searched by inner product on the vectors as they are
// (Zhou et al., "Möbius Transformation for Fast Inner Product Search on Graph",
// NeurIPS 2019, section 4). A graph built on raw inner products lets a few rows of
// high norm hide all others; one built on vectors augmented to Euclidean space
// buries strong outliers among weak rows. The transform discounts distance by norm,
// so that weak rows choose strong neighbours and directions stay diverse.
//
// Construction inserts rows in batches. The searches of a batch see only earlier
// batches and run in parallel; their links are then merged in a fixed order. So
// the graph does not depend on the number of threads. The neighbour selection
// prunes with a slack alpha (Subramanya et al., "DiskANN", NeurIPS 2019, section
// 2.2), after half the places have gone to what it would keep without: in many
// dimensions slack alone leaves clusters without links between them. Distances come
// from package kernel, whose results are equal to the bit on every CPU.
//
// Rows with equal vectors share one node: otherwise a few dozen duplicates fill
// each other's neighbour lists and cut themselves off. After construction every
// node is proved reachable from the entry point on layer 0, or linked until it is.
//
// Vectors are stored as the smallest [Element] type that equals every component, and
// become float32 as they are scored: towers of bytes and of half-precision floats
// take a quarter and a half of the memory, and give the same scores to the bit.
//
// A walk scores nodes on codes of one byte a component, with the integer dot
// product that CPUs have, and rescores its pool on the vectors. Codes are relative
// to a centre of all nodes, with a step for each node (see codes.go): spaces that
// are nearly collapsed, and norms that span orders of magnitude, both occur in real
// towers. A walk starts from hubs, nodes that answer many of the queries that
// calibrated the index, which costs fewer distances than descending through the
// layers; where it costs more, as it may under Euclidean distance, it descends. What
// walks miss often becomes an entry too: on one real tower that takes the recall
// that walks of a shard can reach from 0.98 to 0.999.
//
// What a walk takes time for is to wait for memory, so three nodes are under way at
// once (see walk.go): the list of the next node, the codes of the one before, and the
// scores of the one before that. The codes are asked for in the second cache, not in
// the first, which can wait for fewer lines at a time than a list of neighbours has.
// One kernel call drops what was visited and asks for the codes, one scores a list and
// keeps what is within the pool's bound, and one merges that into the pool, which is
// one sorted array.
//
// A search takes one of three [Plan]s. An exact scan finds the best eligible rows by
// bounds that codes give (see scan.go), and of many rows without a graph it leaves out groups
// that are far (see groups.go). A graph walk keeps a sorted pool of the ef best
// nodes and expands the best unexpanded one. A filtered walk begins
// with a short walk of all nodes, and goes on among eligible nodes alone, which it reaches
// through the lists of others; when it has cost as much as the exact scan would have, or
// ends with too few, the scan takes over, so a filter never makes an answer short. What
// each would cost decides, from what [Index.Calibrate] measured and from how many rows are
// eligible.
//
// The calibration walks under filters of its own too (see calibrate_filtered.go). It
// finds efforts by the share of the rows that is eligible, for queries that the short walk
// finds to be amid what is eligible. Those that are apart from it are answered by the exact
// scan: no walk can tell whether it has found their answers.
//
// What was measured and is worse is in measured.md.
//
// An [Index] comes from [Build] or [Open]. Package shard puts ids and attributes
// around it; package builder builds and calibrates it.
//
// The package has more than 3,000 lines because it is one algorithm: building the graph,
// walking it, scanning, calibrating and mapping its file share the layout of one structure,
// and none of them means anything to anyone else.
package index
