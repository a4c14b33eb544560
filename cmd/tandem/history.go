package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

type releaseHistoryCommand struct {
	releaseFlags
	Limit int  `default:"20" placeholder:"N" help:"How many releases, newest first (default ${default})."`
	JSON  bool `help:"Print JSON."`
}

func (releaseHistoryCommand) Help() string {
	return `Example:

    tandem release history --store store`
}

func (c *releaseHistoryCommand) Run(e *environment) (err error) {
	if c.Limit < 1 {
		return usagef("--limit is %d, want at least 1", c.Limit)
	}
	if err := onlyServer(c.Store, c.Server); err != nil {
		return err
	}
	releases, err := c.open(e, nil)
	if err != nil {
		return err
	}
	defer closing(&err, releases)
	log, err := readLog(e.ctx, releases, c.Limit, false)
	if err != nil {
		return err
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, log.lines)
	} else {
		err = writeHistory(e.stdout, log)
	}
	return errors.Join(err, log.err())
}

func writeHistory(w io.Writer, log *logInfo) error {
	t := newTable(w)
	fmt.Fprintln(t, "generation\ttime\tkind\tarms\tauthor\treason")
	for _, line := range log.lines {
		if f, ok := line.(*entryFault); ok {
			fmt.Fprintf(t, "%d\t\t\t\t\t%s\n", f.Generation, release.Escape(f.Error))
			continue
		}
		r := line.(*releaseInfo)
		arms := map[string]string{}
		for _, a := range r.Arms {
			arms[a.Name] = fmt.Sprintf("%s %d %s", a.Name, a.Weight, release.Escape(a.ModelVersion))
			if note := gateNote(&a); note != "" {
				arms[a.Name] += " (gates " + release.Escape(note) + ")"
			}
		}
		reason := r.Reason
		if r.Override != "" {
			reason += " (gates overridden: " + r.Override + ")"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", r.Generation, r.Time.Format(time.RFC3339), kindOf(r.Release),
			strings.Join(slices.Sorted(maps.Values(arms)), ", "), release.Escape(r.Author), release.Escape(reason))
	}
	return t.Flush()
}

// statusDepth is how many of the newest entries of the log release status looks at.
const statusDepth = 10

// releaseInfo is a release with its identity.
type releaseInfo struct {
	*release.Release
	Hash appendlog.Hash `json:"hash"`
}

func newReleaseInfo(r *release.Release) *releaseInfo {
	if r == nil {
		return nil
	}
	return &releaseInfo{r, r.Hash}
}

// entryFault stands for a release that cannot be read, or for a place where the log does
// not hang together.
type entryFault struct {
	Generation uint64 `json:"generation"`
	Error      string `json:"error"`
	Accepted   bool   `json:"accepted,omitempty"` // the log was accepted with it
}

// logInfo is what the newest entries of the log of releases are.
type logInfo struct {
	lines      []any            // *releaseInfo, or *entryFault in place of one
	newest     *release.Release // that can be read; nil if none of the lines can
	unreadable *entryFault      // the last of all, if it cannot be read
	broken     []entryFault     // places where the log does not hang together, and was not accepted so
	head       uint64           // the generation that was released last, 0 if none was
	hash       appendlog.Hash   // of its entry
	lost       error            // says that something was released and the log is empty
}

// readLog reads some of the newest entries of the log, and, if that is wanted, as many more
// as it takes to find a release that can be read.
func readLog(ctx context.Context, releases releaser, limit int, readable bool) (*logInfo, error) {
	log := &logInfo{lines: []any{}}
	for r, err := range releases.history(ctx) {
		u, b := (*release.UnreadableError)(nil), (*release.BrokenError)(nil)
		switch {
		case errors.As(err, &u):
			f := &entryFault{Generation: u.Generation, Error: "cannot be read: " + u.Err.Error()}
			if log.lines = append(log.lines, f); log.head == 0 {
				log.head, log.hash, log.unreadable = u.Generation, u.Hash, f
			}
		case errors.As(err, &b):
			f := &entryFault{Generation: b.Generation, Error: b.Error(), Accepted: b.Accepted}
			if log.lines = append(log.lines, f); b.Accepted {
				f.Error += "; it was accepted so"
			} else {
				log.broken = append(log.broken, *f)
			}
		case errors.Is(err, release.ErrLost):
			log.lost = err
			return log, nil
		case err != nil:
			return nil, err
		default:
			log.lines = append(log.lines, newReleaseInfo(r))
			log.newest = cmp.Or(log.newest, r)
			if log.head == 0 {
				log.head, log.hash = r.Generation, r.Hash
			}
		}
		if len(log.lines) >= limit && (log.newest != nil || !readable) {
			break
		}
	}
	return log, nil
}

// err returns an error if the log is lost, or does not hang together.
func (l *logInfo) err() error {
	if l.lost != nil {
		return l.lost
	}
	if len(l.broken) == 0 {
		return nil
	}
	return fmt.Errorf("the log of releases does not hang together in %s; a change with --restored accepts it as it is", wording.Plural(len(l.broken), "place"))
}
