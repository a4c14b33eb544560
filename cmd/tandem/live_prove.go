package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

type liveProveCommand struct {
	liveFlags
	Apps    []string      `arg:"" name:"app" help:"Ids of the apps."`
	Timeout time.Duration `default:"5s" placeholder:"TIME" help:"How long servers may take to have read the takedowns, and to answer (default ${default})."`
	JSON    bool          `help:"Print JSON."`
}

func (liveProveCommand) Help() string {
	return `Asks each server to look for each app in every snapshot that it has mapped, as a query does. The exit code is 0 only if every server knows the takedown and cannot return the app; otherwise it is 1, and it says which server, which snapshot, at which position of the log, and how long ago that was proved to be its end. An app that a server does not return for another reason is not proved, and the reason is said: no snapshot is mapped yet, the app is outside of its window, or nothing that is mapped has it.

With --store the takedowns are read from the store's log first, and each server must be where they are.

Example:

    tandem live prove --store store --server 127.0.0.1:8080 --server 127.0.0.1:8081 app-0000042`
}

// appProofInfo is what one server says of one app, for people and as JSON.
type appProofInfo struct {
	Server    string                    `json:"server"`
	App       string                    `json:"app"`
	Proved    bool                      `json:"proved"`
	State     string                    `json:"state,omitempty"` // that of the server's answer; empty of an earlier version, and of the store
	Why       string                    `json:"why,omitempty"`   // why not
	Position  *shard.Position           `json:"position,omitempty"`
	Staleness *float64                  `json:"staleness_seconds,omitempty"`
	Takedown  *takedownInfo             `json:"takedown,omitempty"`
	Snapshots []*tandemv1.AppInSnapshot `json:"snapshots,omitempty"`
	Refuses   bool                      `json:"refuses,omitempty"` // all queries, since it is beyond its fence

	age time.Duration // of the proof
}

// takedownInfo is a takedown, as JSON.
type takedownInfo struct {
	Position shard.Position `json:"position"`
	Time     time.Time      `json:"time"`
	Reason   string         `json:"reason"`
	Author   string         `json:"author"`
}

func (t *takedownInfo) String() string {
	return fmt.Sprintf("at position %s by %s at %s: %s", t.Position, t.Author, t.Time.Format(time.RFC3339), t.Reason)
}

func (c *liveProveCommand) Run(e *environment) error {
	switch {
	case c.Store == "" && len(c.Server) == 0:
		return usagef("missing flags: --server=HOST:PORT or --store=STORE: who is to prove it")
	case c.Timeout <= 0:
		return usagef("--timeout is %s, want more than 0", c.Timeout)
	case len(c.Apps) > maxWritten: // the hint for events is none here
		return usagef("%d ids of apps; accepted: up to %d at a time", len(c.Apps), maxWritten)
	}
	if err := checkNamed("app", c.Apps); err != nil {
		return err
	}
	all, err := c.fleet()
	if err != nil {
		return err
	}
	request := &tandemv1.ProveRequest{Apps: c.Apps}
	var list []appProofInfo
	if c.Store != "" {
		of, err := c.storeProofs(e)
		if err != nil {
			return err
		}
		list = append(list, of...)
		request.MinLive = lastTakedown(of)
	}
	list = append(list, c.serverProofs(e, all, request)...)
	missing := 0
	for _, p := range list {
		if !p.Proved {
			missing++
		}
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, struct {
			Proved bool           `json:"proved"`
			Proofs []appProofInfo `json:"proofs"`
		}{missing == 0, list})
	} else {
		err = writeProofs(e.stdout, list)
	}
	if err == nil && missing > 0 {
		err = errors.New("not proved: " + firstUnproved(list, missing))
	}
	return err
}

// serverProofs asks all servers. Where one that has not read the takedowns is, it says when it is
// asked without them, which is done at the same time: there is one deadline for all.
func (c *liveProveCommand) serverProofs(e *environment, all *fleet.Fleet, request *tandemv1.ProveRequest) (list []appProofInfo) {
	var behind []fleet.ProofAnswer
	var asking sync.WaitGroup
	if request.MinLive != nil {
		asking.Go(func() { behind = all.Prove(e.ctx, &tandemv1.ProveRequest{Apps: c.Apps}, c.Timeout) })
	}
	answers := all.Prove(e.ctx, request, c.Timeout)
	asking.Wait()
	for i, answer := range answers {
		proofs := proofsOf(answer, c.Apps)
		if answer.Err != nil && behind != nil {
			for n, there := range proofsOf(behind[i], c.Apps) {
				proofs[n].Position, proofs[n].Staleness, proofs[n].age, proofs[n].Snapshots = there.Position, there.Staleness, there.age, there.Snapshots
			}
		}
		list = append(list, proofs...)
	}
	return list
}

// firstUnproved says what is not proved, of the first, and how much more there is.
func firstUnproved(list []appProofInfo, missing int) string {
	for _, p := range list {
		if p.Proved {
			continue
		}
		text := fmt.Sprintf("%s, app %s: %s", p.Server, release.Escape(p.App), release.Escape(p.Why))
		if missing > 1 {
			text += fmt.Sprintf("; and %s more", wording.Count(missing-1))
		}
		return text
	}
	return ""
}

// lastTakedown returns the last position of takedowns, nil if there is none.
func lastTakedown(list []appProofInfo) *tandemv1.LivePosition {
	var last *tandemv1.LivePosition
	for _, p := range list {
		if p.Takedown != nil && p.Takedown.Position.Sequence >= last.GetSequence() {
			last = &tandemv1.LivePosition{Log: p.Position.Log, Sequence: p.Takedown.Position.Sequence}
		}
	}
	return last
}

// proofsOf returns what one server says of each app.
func proofsOf(a fleet.ProofAnswer, apps []string) []appProofInfo {
	list := make([]appProofInfo, len(apps))
	for i, app := range apps {
		p := &list[i]
		p.Server, p.App = a.Server.Name, app
		if a.Err != nil {
			p.Why = "it does not say: " + ofServer(a.Err)
			continue
		}
		at := wire.Position(a.Proof.Position)
		p.Position = &at
		if s := a.Proof.Staleness; s != nil {
			p.age = fleet.Staleness(s)
			age := p.age.Seconds()
			p.Staleness = &age
		}
		said := a.Proof.Apps[i]
		p.Snapshots, p.Refuses = said.Snapshots, a.Proof.Refuses
		if said.State != tandemv1.AppState_APP_STATE_UNSPECIFIED {
			p.State = strings.ToLower(strings.TrimPrefix(said.State.String(), "APP_STATE_"))
		}
		if t := said.Takedown; t != nil {
			p.Takedown = &takedownInfo{wire.Position(t.Position), t.Time.AsTime(), t.Reason, t.Author}
		}
		p.judge(said)
	}
	return list
}

// judge says why it is not proved that the app cannot be returned.
func (p *appProofInfo) judge(said *tandemv1.AppProof) {
	var found []string
	for _, s := range said.Snapshots {
		if s.Found {
			found = append(found, fmt.Sprintf("%.12s", s.Snapshot))
		}
	}
	at := fmt.Sprintf("at position %s", p.Position)
	if p.Staleness != nil {
		at += fmt.Sprintf(", which was proved to be the last %s", agoText(p.age))
	}
	switch {
	case said.App != p.App:
		p.Why = fmt.Sprintf("it answers for app %.200q", said.App)
	case len(found) > 0 && p.Refuses:
		p.Why = fmt.Sprintf("it refuses all queries by now, being beyond its fence, and knows of no takedown of what snapshot %s has, %s", strings.Join(found, ", "), at)
	case len(found) > 0:
		p.Why = fmt.Sprintf("IT CAN RETURN IT, of snapshot %s, %s", strings.Join(found, ", "), at)
	case p.Takedown == nil:
		p.Why = "it knows of no takedown" + notReturned(said.State) + ", " + at
	case !said.CannotBeReturned:
		p.Why = "it does not say that all that it has mapped knows the takedown, " + at
	case p.Staleness == nil:
		p.Why = "it has no proof that the log ends " + at
	default:
		p.Proved = true
	}
}

// notReturned goes on with why an app that is not taken down is not returned all the same, and
// when it may be.
func notReturned(state tandemv1.AppState) string {
	switch state {
	case tandemv1.AppState_APP_STATE_NO_SNAPSHOT:
		return ", and has no snapshot mapped yet: it may return it once it has"
	case tandemv1.AppState_APP_STATE_OUTSIDE_WINDOW:
		return ", and the app is outside of its window: it may return it at another time"
	case tandemv1.AppState_APP_STATE_UNKNOWN:
		return ", and nothing that it has mapped has the app: it may return it of another snapshot, or once it is upserted"
	}
	return ", and may return it of another snapshot, or at another time"
}

func writeProofs(w io.Writer, list []appProofInfo) error {
	told := map[string]string{}
	for _, p := range list {
		if p.Takedown == nil {
			continue
		}
		if text := p.Takedown.String(); told[p.App] != text {
			told[p.App] = text
			fmt.Fprintf(w, "app %s was taken down %s\n", release.Escape(p.App), release.Escape(text))
		}
	}
	var rows [][]string
	for _, p := range list {
		row := []string{p.Server, p.App, "NOT PROVED", "-", "-", "-"}
		if p.Proved {
			row[2] = "cannot be returned"
		}
		if p.Position != nil {
			row[3] = p.Position.String()
		}
		if p.Staleness != nil {
			row[4] = agoText(p.age)
		}
		if len(p.Snapshots) > 0 {
			row[5] = snapshotsText(p.Snapshots)
		}
		rows = append(rows, row)
	}
	if err := writeRows(w, "server\tapp\tproof\tposition\tproved\tsnapshots", rows); err != nil {
		return err
	}
	for _, p := range list {
		if !p.Proved {
			fmt.Fprintf(w, "\n%s, app %s: %s\n", release.Escape(p.Server), release.Escape(p.App), release.Escape(p.Why))
		}
	}
	return nil
}

// snapshotsText says for people what there is of an app in each snapshot.
func snapshotsText(list []*tandemv1.AppInSnapshot) string {
	texts := make([]string, len(list))
	for i, s := range list {
		has := "does not have it"
		switch {
		case s.RowsUnknown:
			has = "its node is too old to tell which rows it has"
		case s.InSnapshot && s.Fresh:
			has = "has it, and it was upserted"
		case s.InSnapshot:
			has = "has it"
		case s.Fresh:
			has = "it was upserted"
		}
		texts[i] = fmt.Sprintf("%.12s (%s)", s.Snapshot, has)
	}
	return strings.Join(texts, ", ")
}
