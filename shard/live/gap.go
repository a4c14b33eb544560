package live

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/shard/appendlog"
)

// Gap is where entries of the log are missing which later ones follow. What they have changed
// is not known.
type Gap struct{ From, Through uint64 }

// Entries returns how many are missing.
func (g Gap) Entries() uint64 { return g.Through - g.From + 1 }

// String names them for people.
func (g Gap) String() string {
	if g.From == g.Through {
		return fmt.Sprintf("entry %d", g.From)
	}
	return fmt.Sprintf("entries %d to %d", g.From, g.Through)
}

// GapError says that entries of the log are missing. Its class is [appendlog.ErrGap].
type GapError struct {
	Gap
	Head uint64 // the last entry of the log
}

func (e *GapError) Error() string {
	verb := "are"
	if e.From == e.Through {
		verb = "is"
	}
	return fmt.Sprintf("%v: %s %s missing, and the log goes on to entry %d", appendlog.ErrGap, e.Gap, verb, e.Head)
}

// Unwrap returns the class.
func (e *GapError) Unwrap() error { return appendlog.ErrGap }

// maxGap is how many entries may be missing in one place: of each something is remembered.
// A name far ahead of all others is none that a writer has given.
const maxGap = 1 << 20

// pass passes over the entries that are missing behind those that were applied, or returns a
// [*GapError]. The log goes on to head.
func (l *loaded) pass(ctx context.Context, log *appendlog.Log, head uint64, allowed bool) error {
	from := l.state.position.Sequence + 1
	next, err := log.After(ctx, from)
	if err != nil {
		return err
	}
	if next == 0 { // a list may lack what is there
		next = head
	}
	gap := Gap{from, next - 1}
	if !allowed {
		return &GapError{gap, head}
	}
	if gap.Entries() > maxGap {
		return fmt.Errorf("%w; accepted: up to %d in one place", &GapError{gap, head}, maxGap)
	}
	e, err := log.Get(ctx, next)
	if err != nil {
		return err
	}
	c, err := Decode(e.Data)
	if err != nil {
		return err
	}
	l.state.pass(gap, c)
	l.lost = append(l.lost, gap)
	return nil
}

// pass has a state go on behind entries that are missing, with the one that follows them.
func (s *State) pass(g Gap, next *Commit) {
	for n := g.From; n <= g.Through; n++ {
		s.past.add(n, s.time, appendlog.Hash{}) // which is no entry's
	}
	if next.Log > s.position.Log { // what both have in common was in an entry that is missing
		s.lineage = s.lineage.next(next.Log, 0)
		s.position.Log = next.Log
	}
	s.position.Sequence, s.position.Hash = g.Through, next.Previous
}
