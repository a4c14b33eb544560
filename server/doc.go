// Package server answers retrieval queries over the network.
//
// A [Service] implements the RPCs of api/tandem/v1 over one [snapshots.Snapshot].
// [NewHandler] puts it behind HTTP, with health and reflection; [Run] is the whole
// process: listen, load, serve, drain. Command tandem calls Run; tests, and
// programs that have an HTTP server of their own, call NewHandler.
//
// # Goals
//
// A caller's mistake is told before any work is done, in a text that names the
// field, the value and what is accepted. An answer says what it is based on, and
// why it is short when it is. Health can be asked from the first moment, and says
// ready only once every shard is verified and warm. No request makes the process
// panic, run out of memory or out of goroutines, and none is lost when the process
// is told to stop. The server adds little to the cost of the search.
//
// # Design
//
// What serves is a [serving]: an immutable snapshot with a count of the requests
// on it. A request takes one, works on it to its end and lets go of it; the last
// to let go closes the files. Nothing of an answer aliases them. What the live log has lies
// over it ([livelog.Layer]): a request takes that once too, with its position and one reading
// of the clock (fence, pinned), so that all of an answer is of one state.
//
// A request passes, from the outside in: the connections, which are bounded
// (listener); recovery from panics; a bound on the time to read or write (limits); its
// arrival, whole, and a bound on the bytes of all (call, bytes); Connect, which decodes it
// (codec, compress), long lists unmade (lists); the request's id, the log and the errors'
// codes and sizes (observe); the rules of the contract (validate); and the method, which
// finds what will answer and what that costs (estimate), is admitted (admission), checks
// what depends on the snapshot (query), asks a tower and puts the answer on the wire
// (answer). Then it holds nothing but the bytes of its answer (encode), until its caller
// has taken them. Before the first of them is written it is looked whether the live log was
// seen, not too long ago, to end where the answer has it (fence).
//
// Events for the live log come one message at a time (live, live_events), or in streams of
// messages (imports), of which one is held at a time.
//
// What is released is told and changed through the store, whatever this server serves
// (releases, releases_read, releases_diff, releases_error).
//
// A share of the requests can be recorded, with their answers, into the store
// (recorder), as files that package querylog reads and bench/replay asks again.
//
// Below this package there are no RPC codes: it alone maps errors to them
// (errors).
//
// The package has more than 3,000 lines because a request holds what is bounded (its
// connection, its bytes, its work, its time) from its first byte to the last of its answer:
// the steps above share that state (call), and give it up for one another.
package server
