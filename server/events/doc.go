// Package events is what a server tells of itself as it happens, and who is told.
//
// A [Listener] is a struct of functions, one for each kind of event, in the manner of
// pebble's EventListener: whoever wants to know of some of them sets those. The log is one
// listener (see [Log]), and what counts or shows is another; [Tee] tells all of them.
// Nothing else of a server writes to a log, so what one listener can know all can.
package events
