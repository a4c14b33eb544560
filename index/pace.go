package index

// pace makes a long search look, now and then, whether its caller still waits, and give
// way to others that have less to do.
//
// Work is counted in components of code vectors that are scored, of which there are
// about ten in a nanosecond.
type pace struct {
	done    <-chan struct{} // nil if nothing ends the search
	pause   func()          // called in place of giving way, unless nil
	left    int             // work until it looks again
	stopped bool            // whether done was closed when it looked
}

const (
	// lookWork is the work between two looks, of about 0.1 ms.
	lookWork = 1 << 20
	// entryWork is that of moving an entry of a pool, for each node that is expanded.
	entryWork = 4
	// vectorWork is that of a component of a vector, which is larger than a code and not
	// in order.
	vectorWork = 8
	// sortWork is that of sorting an entry.
	sortWork = 256
	// bulk is how many vectors are scored, or entries sorted, between two looks at most.
	bulk = 4096
)

// ends counts work, and reports whether the search is to end.
func (p *pace) ends(work int) bool {
	p.left -= work
	return p.left <= 0 && p.look()
}

func (p *pace) look() bool {
	if p.stopped {
		return true
	}
	p.left = lookWork
	switch {
	case p.pause != nil:
		p.pause()
	case p.done == nil:
		return false
	default:
		GiveWay()
	}
	select {
	case <-p.done:
		p.left, p.stopped = 0, true
	default:
	}
	return p.stopped
}
