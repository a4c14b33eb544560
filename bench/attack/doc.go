// Package attack measures what a server is to those who ask it fairly while others send
// it the worst requests that can be thought of.
//
// [Run] starts a server and attackers as processes of their own, the server on one
// processor and all clients on another, asks light queries before, while and after the
// attackers send, and reports what broke a bound. [Send] is the attackers. `tandem bench
// attack` calls both.
//
// # Goals
//
// A bound on what callers can do is worth what the worst caller that was tried makes of
// it. So each kind of attack is one that took a server down somewhere, or that a bound of
// this server was made for, and there are both legal requests that cost much and illegal
// ones, down to single bytes of HTTP/2. What is found can be found again: with the seed,
// and a kind alone.
//
// # Design
//
// A number of attackers, each with connections of its own, take turns: each turn is of
// one kind, drawn by its weight, with a generator of random numbers that only the seed,
// the attacker and its turn decide. What it sends does not depend on what came back; what
// the server makes of it depends on what else it does just then. A turn ends by itself
// within some seconds, whatever the server does.
//
// The queries that are measured are sent at fixed times, whether or not those before them
// were answered, and a latency counts from when its query was to be sent: a server that
// stalls is not asked less. The attackers are a process of a lower priority than the one
// that measures, since both share a processor, and what they send is made once and sent
// often.
//
// A broken bound is one of: the server's memory, while and after; the latency of the
// queries beside that without attackers; a query that failed but for overload; an answer
// to an attacker that says the server is at fault; and the end of the server.
//
// The package has more than 3,000 lines because no client library sends what an attacker
// does: frames, messages and connections are made here byte by byte, for three dozen kinds.
package attack
