// Package recall measures how soon servers find that the recall of live queries is low, and
// how often they are wrong about that.
//
// [Run] serves a snapshot of which links of the graph are cut, with checksums that are valid,
// and takes the time until there is an alarm and until the server has rolled back by itself.
// [Record] serves a snapshot that is whole and writes down what audits find. [Simulate] has
// the sequences of servers look at hours of audits that are drawn from such a record, where
// recall is as it was recorded and where it is just not below its floor, and counts alarms.
package recall
