// Package machine measures what package capacity reckons with, on this machine and with processes that it
// starts, and holds the simulation against clusters of such processes.
//
// # Design
//
// What goes into a simulation is measured of one shard and of one router by themselves, never of the cluster
// that it is compared with. Times of processors are what a process itself has taken, so others who use
// them matter less. A call costs more in a process that is asked seldom, and less beside others of the same
// program: so both are measured at the rate of the cluster, beside another cluster that has the processors
// be as busy. What a process takes that nobody asks is measured too, and counted once.
//
// [Measure] and [Validate] are called by tandem bench capacity. They are for Linux.
package machine
