// Package wire has what both the contract and the packages below the server know, each in
// the other's form: values of attributes, positions of the live log, and its events. The
// server and the command line use it, so that an event means the same whichever of them
// writes it.
//
// What has no form on the other side is an error that names the field as the contract does.
// The rules of an event are elsewhere: [live.Event.Check].
package wire
