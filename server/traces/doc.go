// Package traces tells collectors of OpenTelemetry how requests went: a trace for some of
// them, with a span for each stage and each shard that was asked.
//
// # Goals
//
// A request that is not traced pays for one look at its headers. No collector, whatever it
// does, slows a request down or takes memory without bound; what it does not get is counted.
// No caller can have more traced than the server lets it.
//
// # Design
//
// A [Tracer] decides when a request begins whether it is traced. A [Trace] then keeps what
// stages tell it, which is names, times and attributes; only at the request's end are spans
// made of that, all of them or, where those that wait for the collector are as many as may
// wait, none. From there on they are the SDK's: a batch at a time is sent by OTLP over HTTP by
// one goroutine, which ends with [Tracer.Stop].
//
// Package server begins, fills and ends traces; the command line says where they go.
package traces
