package main

import (
	"fmt"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/audit"
)

// auditFlags are those of serve that say how the recall of live queries is audited.
type auditFlags struct {
	AuditCPU float64 `name:"audit-cpu" default:"0.02" placeholder:"X" help:"Share of one processor for answering live queries again by an exact scan, to know their recall: 0.02 is a fiftieth, 0 none. Of a router it is a share of the processors of all nodes together, for its queries; of a node (--role shard) of its own, for those of all routers (default ${default})."`
}

// check returns an error for a flag out of bounds.
func (f *auditFlags) check() error {
	if !(f.AuditCPU >= 0 && f.AuditCPU <= 1) {
		return usagef("--audit-cpu is %v, want 0 to 1", f.AuditCPU)
	}
	return nil
}

// config returns what the flags say.
func (f *auditFlags) config() server.Audit {
	return server.Audit{CPU: f.AuditCPU, Author: fmt.Sprintf("tandem serve, %s", author())}
}

// recallFlags are those of releases that say what becomes of it if the recall of live queries
// is low.
type recallFlags struct {
	AutoRollback bool `help:"Have servers that may write to the store roll back by themselves when the recall of live queries of an arm is below its floor. It is of this release alone: a change that does not say it ends it."`
}

// checkFloor returns an error unless a recall floor is one that an arm may have.
func checkFloor(floor float64) error {
	if !(floor >= 0 && floor <= 1-audit.Margin) {
		return usagef("--recall-floor is %v; accepted: 0 to %v", floor, 1-audit.Margin)
	}
	return nil
}
