package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

type liveAcceptCommand struct {
	liveWriteFlags
	Reason string `required:"" placeholder:"TEXT" help:"Why, for those who read it later."`
	Lost   uint64 `default:"0" placeholder:"N" help:"How many entries are missing in it: what they have changed is lost. Without it a log that lacks any is not accepted, and they are named."`
	Common uint64 `default:"0" placeholder:"N" help:"Last entry of it that is known to be the same in the log that servers have followed: what later ones have changed lies over every snapshot, whatever position its inputs reflect (default ${default}: what all have changed does)."`
}

func (liveAcceptCommand) Help() string {
	return `For a store that was restored from a copy, or whose live log is another one than servers have followed: they refuse it until a person has looked at it. What was taken down after the copy was made is not taken down in it: write that first, such as from your own record, with tandem live import. Then this begins a new log id, and servers follow the log from there.

Example:

    tandem live accept --store store --reason "restored the copy of Monday" --server 127.0.0.1:8080 --wait 1m`
}

func (c *liveAcceptCommand) Run(e *environment) (err error) {
	if c.Store == "" {
		return usagef("missing flags: --store=STORE: whose live log is accepted")
	}
	if err := c.check(); err != nil {
		return err
	}
	if err := checkReason(c.Reason, true); err != nil {
		return err
	}
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	if err := isStore(e.ctx, store); err != nil {
		return err
	}
	// Not even what releases say of it is asked: that it is behind is why it is accepted.
	replica, err := e.openReplica(store, live.Options{Author: c.author(), PassGaps: true})
	if err != nil {
		return err
	}
	lost, entries := lostOf(replica.Lost())
	if c.Lost != entries {
		return c.lostError(lost, entries)
	}
	if head := replica.View().Position.Sequence; c.Common > head {
		return usagef("--common is %d; accepted: 0 to %d, the last entry", c.Common, head)
	}
	at, err := replica.Accept(e.ctx, c.Reason, c.Common)
	if errors.Is(err, live.ErrUnconfirmed) {
		return fmt.Errorf("%s\n  tandem live status shows whether the log has a new id", err.Error())
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, struct {
			Position shard.Position `json:"position"`
			Lost     uint64         `json:"lost,omitempty"` // entries
		}{at, entries})
	} else {
		_, err = fmt.Fprintf(e.stdout, "position %s\n", at)
		if err == nil && entries > 0 {
			_, err = fmt.Fprintf(e.stdout, "lost %d of its entries: %s\n", entries, lost)
		}
	}
	if err != nil {
		return err
	}
	return c.await(e, store, at)
}

// maxGapsShown is how many places are named at which entries are missing.
const maxGapsShown = 10

// lostOf names entries that are missing, and returns how many they are.
func lostOf(gaps []live.Gap) (names string, entries uint64) {
	var list []string
	for i, g := range gaps {
		entries += g.Entries()
		if i < maxGapsShown {
			list = append(list, g.String())
		}
	}
	names = strings.Join(list, ", ")
	if more := len(gaps) - maxGapsShown; more > 0 {
		names += fmt.Sprintf(" and in %d more places", more)
	}
	return names, entries
}

// lostError says which entries are missing of a log for which --lost says another number.
func (c *liveAcceptCommand) lostError(names string, entries uint64) error {
	if entries == 0 {
		return usagef("--lost is %d; accepted: 0, since no entry is missing", c.Lost)
	}
	return fmt.Errorf("%w: it lacks %s: bring back what is missing, or accept by --lost %d that what it changed is lost",
		appendlog.ErrGap, names, entries)
}
