package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

// settleTime is how long status waits for servers to be at one position.
const settleTime = 3 * time.Second

type liveStatusCommand struct {
	liveFlags
	JSON bool `help:"Print JSON."`
}

func (liveStatusCommand) Help() string {
	return `Of a store: where its live log ends, what of it is summed up, and what it amounts to. Of servers: where they are, and what they have laid over which snapshot.

Servers are asked until all are at one position, for up to 3 seconds, and what they say at the same positions is compared, with one another and with the store. The exit code is 1 if one has something else there, does not come to where another is, does not follow the log, is beyond its fence, or does not answer within 5 seconds.

Examples:

    tandem live status --store store

    tandem live status --store store --server 127.0.0.1:8080 --server 127.0.0.1:8081`
}

// liveServerInfo is what one server says of the live log, for people and as JSON.
type liveServerInfo struct {
	Server string                          `json:"server"`
	Error  string                          `json:"error,omitempty"`  // why it has said nothing
	Status *tandemv1.GetLiveStatusResponse `json:"status,omitempty"` // nil then
	Faults []string                        `json:"faults,omitempty"`

	at     shard.Position
	unread error // why its last look at the log failed
}

func newLiveServerInfo(a fleet.LiveAnswer, faults []error) liveServerInfo {
	info := liveServerInfo{Server: a.Server.Name, Status: a.Status, at: a.Position(), unread: a.Unread()}
	if a.Err != nil {
		info.Error = ofServer(a.Err)
	}
	for _, fault := range faults {
		info.Faults = append(info.Faults, ofServer(fault))
	}
	return info
}

func (c *liveStatusCommand) Run(e *environment) (err error) {
	if c.Store == "" && len(c.Server) == 0 {
		return usagef("missing flags: --store=STORE or --server=HOST:PORT: whose status")
	}
	all, err := c.fleet()
	if err != nil {
		return err
	}
	var log *liveLogInfo
	var truth *fleet.LiveKnown
	if c.Store != "" {
		if log, err = readLiveLog(e, &c.liveFlags); err != nil {
			return err
		}
		if !log.keyless { // the digest would be another one
			truth = &fleet.LiveKnown{Name: "the store", Position: log.Position, Hash: log.Hash, Digest: log.Digest}
		}
	}
	var servers []liveServerInfo
	faulty := 0
	if len(all.Servers) > 0 {
		compared := all.CompareLive(e.ctx, settleTime, truth)
		for i, answer := range compared.Answers {
			s := newLiveServerInfo(answer, compared.Faults[i])
			if servers = append(servers, s); s.Status == nil || len(s.Faults) > 0 {
				faulty++
			}
		}
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, struct {
			Log     *liveLogInfo     `json:"log,omitempty"`
			Servers []liveServerInfo `json:"servers,omitempty"`
		}{log, servers})
	} else {
		err = writeLiveStatus(e.stdout, log, servers)
	}
	if err == nil && faulty > 0 {
		err = fmt.Errorf("%d of %s not as it should be", faulty, wording.Plural(len(servers), "server"))
	}
	return err
}

func writeLiveStatus(w io.Writer, log *liveLogInfo, servers []liveServerInfo) error {
	if log != nil {
		if err := log.write(w); err != nil {
			return err
		}
		if len(servers) > 0 {
			fmt.Fprintln(w)
		}
	}
	if len(servers) == 0 {
		return nil
	}
	t := newTable(w)
	fmt.Fprintln(t, "server\tposition\tdigest\tproved\tfence\ttakedowns\tforgotten\tupserted\twrites")
	for _, s := range servers {
		if s.Status == nil {
			fmt.Fprintf(t, "%s\t%s\n", s.Server, release.Escape(s.Error))
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%.12s\t%s\t%s\t%s\t%s\t%s of %s\t%s\n", s.Server, release.Escape(s.at.String()), s.Status.Digest,
			provedText(s.Status), fenceText(s.Status), wording.Count(int64(s.Status.Takedowns)), wording.Count(int64(s.Status.ForgottenUsers)),
			wording.Bytes(int64(s.Status.FreshBytes)), wording.Bytes(int64(s.Status.FreshBytesLimit)), onOff(s.Status.Writes))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := writeOverlays(w, servers); err != nil {
		return err
	}
	for _, s := range servers {
		for _, note := range s.notes() {
			fmt.Fprintf(w, "\n%s: %s\n", s.Server, release.Escape(note))
		}
	}
	return nil
}

// provedText says how old a server's proof is that the log ends where it is.
func provedText(s *tandemv1.GetLiveStatusResponse) string {
	if s.Staleness == nil {
		return "-"
	}
	return agoText(fleet.Staleness(s.Staleness))
}

// fenceText says beyond which age of the proof a server does not answer, or answers flagged.
func fenceText(s *tandemv1.GetLiveStatusResponse) string {
	text := wording.Seconds(s.Fence.AsDuration())
	if s.AnswersStale {
		text += ", flagged"
	}
	return text
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// writeOverlays writes what lies over the snapshots of servers, one line for each tower that
// anything lies over.
func writeOverlays(w io.Writer, servers []liveServerInfo) error {
	var rows [][]string
	for _, s := range servers {
		for _, o := range s.Status.GetOverlays() {
			for _, t := range []struct {
				name string
				*tandemv1.OverlayTower
			}{{"apps", o.Apps}, {"users", o.Users}} {
				if t.GetDeadRows()+t.GetChangedRows()+t.GetFreshRows()+t.GetWindows()+t.GetMisfitCount() == 0 && t.name == "users" {
					continue
				}
				rows = append(rows, []string{
					s.Server, fmt.Sprintf("%.12s", o.Snapshot), o.ModelVersion, positionOf(o.Inputs), t.name,
					wording.Count(int64(t.GetDeadRows())), wording.Count(int64(t.GetChangedRows())),
					fmt.Sprintf("%s of %s", wording.Count(int64(t.GetFreshRows())), wording.Count(int64(t.GetFreshRowsLimit()))),
					wording.Count(int64(t.GetWindows())), wording.Count(int64(t.GetMisfitCount())),
				})
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return writeRows(w, "server\tsnapshot\tversion\tinputs\ttower\tdead\tchanged\tfresh\twindows\tmisfits", rows)
}

// positionOf is a position of the contract for people.
func positionOf(p *tandemv1.LivePosition) string {
	return wire.Position(p).String()
}

// notes says what people should know of a server beside the tables.
func (s *liveServerInfo) notes() []string {
	notes := append([]string{}, s.Faults...)
	if s.unread != nil {
		notes = append(notes, s.unread.Error())
	}
	status := s.Status
	if status == nil {
		return notes
	}
	if by := status.NoTimeTravel; by == "" {
		notes = append(notes, "nothing tells it that the log is not an older copy of itself")
	}
	for _, p := range status.Pending {
		notes = append(notes, fmt.Sprintf("no snapshot of %s at %s serves: %s and %s that were upserted for it since %s wait for one",
			p.Model, p.ModelVersion, wording.Plural(int64(p.Apps), "app"), wording.Plural(int64(p.Users), "user"), p.Since.AsTime().Format(time.RFC3339)))
	}
	for _, o := range status.Overlays {
		for _, t := range []*tandemv1.OverlayTower{o.Apps, o.Users} {
			if n := len(t.GetMisfits()); n > 0 {
				more := ""
				if left := t.GetMisfitCount() - uint64(n); t.GetMisfitCount() > uint64(n) {
					more = fmt.Sprintf("; and %s more", wording.Count(int64(left)))
				}
				notes = append(notes, fmt.Sprintf("what does not fit snapshot %.12s counts nothing in it: %s%s", o.Snapshot, strings.Join(t.GetMisfits(), "; "), more))
			}
		}
	}
	return notes
}
