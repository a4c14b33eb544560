// Package metrics is what a server counts and shows, in the forms of Prometheus.
//
// # Goals
//
// Whoever operates a server sees what it does, and whether that is good, by arm, plan and
// segment. RPCs look as they do in every other service of a fleet that Baseplate.go
// instruments. Whatever callers send, the number of series stays below [MostSeries]; and a
// query is told of in a few hundred nanoseconds, without an allocation.
//
// # Design
//
// [Metrics] has one registry. It learns what happens as an [events.Listener], and what is,
// from a [State] that a server makes when it is scraped.
//
// What is told of queries is a [cell] for each arm, plan and segment, which is found by two
// small maps. Which arms and segments have cells of their own follows from what answers
// alone: the server tells of that before it changes, and when it has, and with an arm its
// series go. All else is told of as the arm, or the segment, "other".
//
// Histograms of RPCs are native ones too. Those of queries are not: there are many of them,
// and native ones take more time, and memory that grows.
package metrics
