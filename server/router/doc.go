// Package router answers queries with shards that nodes hold: it knows which nodes there are,
// and what each says it holds, and makes of a snapshot towers whose parts are asked on
// whichever replica of a shard is likely to answer first.
//
// # Goals
//
// An answer has what one machine with all shards would answer, to the byte, whichever replicas
// were asked. A replica that dies, stands still or is slow costs callers neither an answer nor
// much time, and the other replicas no more than a bounded share of further work. Nothing is
// agreed upon between routers, or between nodes.
//
// # Design
//
// Each node is watched ([remote.Node.Watch]): it streams which shards it can be asked for, and
// at which positions of the live log. Of each snapshot that is opened there is a [Layer]. It
// picks the position that queries are asked at: one that every shard can be asked at, the
// newest that all replicas have, unless some are too far behind. What is taken down, and who
// is forgotten, is refused by what the router itself has read of the log, which may be newer.
//
// A query asks one replica of each shard, chosen as the better of two that are drawn (M.
// Mitzenmacher, "The power of two choices in randomized load balancing", IEEE Transactions on
// Parallel and Distributed Systems 12, 2001), by how long it took to answer and how many
// requests it has, the latter to the third power (L. Suresh et al., "C3: Cutting tail latency in
// cloud data stores via adaptive replica selection", NSDI 2015). What takes longer than most
// requests to that shard do is asked of another replica, too, and the first answer counts (J.
// Dean and L. A. Barroso, "The tail at scale", Communications of the ACM 56, 2013); what fails
// is asked of another. Both have budgets, so that a cluster that is overloaded is not asked
// twice. A node that fails or loses several times in a row is left alone until it has answered
// a probe, and is then given more and more again. None of that is so of audits, see [Router.Audit].
package router
