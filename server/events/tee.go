package events

import (
	"net"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Tee returns a listener that tells all of those that are given, in their order. None of
// its functions is nil.
func Tee(list ...*Listener) *Listener {
	return &Listener{
		Listening:        tee(list, func(l *Listener) func(net.Addr) { return l.Listening }),
		AdminListening:   tee(list, func(l *Listener) func(net.Addr) { return l.AdminListening }),
		Console:          tee(list, func(l *Listener) func(string) { return l.Console }),
		MemoryLimit:      tee(list, func(l *Listener) func(MemoryLimit) { return l.MemoryLimit }),
		Unreleased:       tee(list, func(l *Listener) func(Unreleased) { return l.Unreleased }),
		LoadBegin:        tee(list, func(l *Listener) func(Load) { return l.LoadBegin }),
		LoadEnd:          tee(list, func(l *Listener) func(Load) { return l.LoadEnd }),
		Switched:         tee(list, func(l *Listener) func(Switch) { return l.Switched }),
		NotServed:        tee(list, func(l *Listener) func(NotServed) { return l.NotServed }),
		ArmKept:          tee(list, func(l *Listener) func(Load) { return l.ArmKept }),
		Closing:          tee(list, func(l *Listener) func(manifest.Digest) { return l.Closing }),
		Closed:           tee(list, func(l *Listener) func(Closed) { return l.Closed }),
		ShardLost:        tee(list, func(l *Listener) func(ShardLost) { return l.ShardLost }),
		Releases:         tee(list, func(l *Listener) func(Releases) { return l.Releases }),
		Live:             tee(list, func(l *Listener) func(Live) { return l.Live }),
		Arms:             tee(list, func(l *Listener) func(Arms) { return l.Arms }),
		RPCBegin:         tee(list, func(l *Listener) func(string) { return l.RPCBegin }),
		RPCEnd:           tee(list, func(l *Listener) func(RPC) { return l.RPCEnd }),
		Answered:         tee(list, func(l *Listener) func(*Answer) { return l.Answered }),
		NotFound:         tee(list, func(l *Listener) func(NotFound) { return l.NotFound }),
		RequestEnd:       tee(list, func(l *Listener) func(Request) { return l.RequestEnd }),
		AdminRefused:     tee(list, func(l *Listener) func(Request) { return l.AdminRefused }),
		Connections:      tee(list, func(l *Listener) func(Connections) { return l.Connections }),
		ConnectionFailed: tee(list, func(l *Listener) func(string) { return l.ConnectionFailed }),
		Recording:        tee(list, func(l *Listener) func(Recording) { return l.Recording }),
		Outcomes:         tee(list, func(l *Listener) func(Outcomes) { return l.Outcomes }),
		Secrets:          tee(list, func(l *Listener) func(Secrets) { return l.Secrets }),
		Nodes:            tee(list, func(l *Listener) func(Nodes) { return l.Nodes }),
		Recall:           tee(list, func(l *Listener) func(Recall) { return l.Recall }),
		Traced:           tee(list, func(l *Listener) func(Traced) { return l.Traced }),
		Held:             tee(list, func(l *Listener) func(Held) { return l.Held }),
		Draining:         tee(list, func(l *Listener) func(Draining) { return l.Draining }),
	}
}

// tee returns what calls one function of each listener that has it.
func tee[T any](list []*Listener, field func(*Listener) func(T)) func(T) {
	var told []func(T)
	for _, l := range list {
		if f := field(l); f != nil {
			told = append(told, f)
		}
	}
	switch len(told) {
	case 0:
		return func(T) {}
	case 1:
		return told[0]
	}
	return func(event T) {
		for _, f := range told {
			f(event)
		}
	}
}
