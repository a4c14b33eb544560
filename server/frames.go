package server

import (
	"encoding/binary"
	"sync"
	"time"
)

// frames follows the frames of HTTP/2 in one direction of a connection.
type frames struct {
	header [frameHeader]byte // the beginning of the frame that is under way
	held   int               // bytes in header
	left   int               // bytes of the frame's payload that are to come
}

// frameHeader is the length of the header of a frame.
const frameHeader = 9

// The kinds of frames that are told apart.
const (
	dataFrame    = 0
	headersFrame = 1
	resetFrame   = 3
)

// goAway is the frame that tells a client to go, with the largest number of a stream, and
// without an error.
var goAway = [...]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// beCalm is the frame that tells a client why its connection is closed
// (ENHANCE_YOUR_CALM), without a word on which of its requests were begun.
var beCalm = [...]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11}

// follow goes on by p, and calls begins for each frame whose header ends in it.
func (f *frames) follow(p []byte, begins func(kind byte, size int)) {
	for len(p) > 0 {
		if f.held < frameHeader {
			n := copy(f.header[f.held:], p)
			f.held += n
			p = p[n:]
			if f.held == frameHeader {
				f.left = int(binary.BigEndian.Uint32(f.header[:4]) >> 8)
				begins(f.header[3], f.left)
			}
		}
		n := min(f.left, len(p))
		f.left -= n
		p = p[n:]
		if f.held == frameHeader && f.left == 0 {
			f.held = 0
		}
	}
}

// between reports whether no frame is under way.
func (f *frames) between() bool { return f.held == 0 }

// What frames that arrive take of a connection's credit, in about the time that a
// processor takes for a frame that does nothing, and what those that answer it give. A
// request is answered by one or two frames with headers: it earns more than it takes.
const (
	headersPrice = 5
	resetPrice   = 90 // a request was worked on for nothing
	smallData    = 1 << 10
	answerCredit = 80

	firstCredit = 60
	mostCredit  = 100_000 // of which a client pays for a thousand that it gave up in a bad second
)

// priceOf returns what a frame that arrives takes.
func priceOf(kind byte, size int) int64 {
	switch kind {
	case headersFrame:
		return headersPrice + int64(size)/smallData
	case resetFrame:
		return resetPrice
	case dataFrame:
		if size >= smallData {
			return 0 // the bytes are what costs
		}
	}
	return 1
}

// creditOf returns what a frame that is written gives.
func creditOf(kind byte, size int) int64 {
	switch kind {
	case headersFrame:
		return answerCredit
	case dataFrame:
		return int64(size) / smallData
	}
	return 0
}

// allowance is how many frames without credit all connections may send together. Those
// that lack credit share it: one that lacks little waits little, whatever others send.
type allowance struct {
	mu      sync.Mutex
	left    float64   // that may be sent at once
	at      time.Time // since when there have been more, later than now if they are spent before
	resting int       // connections that wait
}

// spareFrames is how many there may be in a second: they take about a twentieth of one
// processor.
const spareFrames = 10_000

// longestDebt is how long there are no more after much was spent that there was not.
const longestDebt = time.Second

// spend takes so many, and returns how long to wait before more. If that is not 0, rested
// must be called after it.
func (a *allowance) spend(n int64) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	since := now.Sub(a.at)
	if since < -2*longestDebt { // the clock was set back
		a.at, since = now, 0
	}
	if since > 0 {
		a.left = min(a.left+since.Seconds()*spareFrames, spareFrames)
		a.at = now
	}
	if float64(n) <= a.left {
		a.left -= float64(n)
		return 0
	}
	wait := time.Duration((float64(n) - a.left) / spareFrames * float64(time.Second))
	a.left = 0
	if a.at = a.at.Add(wait); a.at.Sub(now) > longestDebt {
		a.at = now.Add(longestDebt)
	}
	a.resting++
	return wait * time.Duration(a.resting)
}

// rested ends a wait.
func (a *allowance) rested() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resting--
}
