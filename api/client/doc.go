// Package client asks Tandem servers for candidates, from a ranker or any other service in Go.
//
// # Goals
//
// A ranker has some tens of milliseconds, several servers to ask, and something else to show if
// there is no answer. So a call ends by its deadline whatever servers do; its error says what a
// program can do about it, as a [Reason], and what a person needs to know; a server that fails, is
// slow or is about to end is asked less, before callers notice; and asking again never makes an
// overload worse.
//
// # Design
//
// A [Client] knows servers from a [Source] that is asked again and again. Of two servers that
// are drawn, a call goes to the one where it is expected to end sooner, by how long calls took
// there and how many are under way. A server that has failed several times in a row is left
// alone for a while, and then given a growing share; one that says at /readyz that it is not
// ready is asked only if no other is left.
//
// No call of the contract has side effects, so each may be repeated. It is where another try, or
// another server, may have an answer, and within a budget: a tenth of the calls. What a server
// says about when to retry counts for that server. Hedges, which ask a second server where the
// first takes longer than most, have a budget of their own and are off unless asked for.
//
// An answer that is older than the fence and the deadline is dropped: it may have an app that was
// taken down since. See [WithFence].
//
// Connections are of HTTP/1.1 unless asked otherwise, one request on each at a time, and kept:
// the server and the client then need less CPU a call than by HTTP/2.
//
// Package clienttest has a server in memory for the tests of who imports this one.
package client
