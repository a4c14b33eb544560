package builder

import (
	"testing"

	"github.com/tandem-ann/tandem/builder/plan"
)

// Records and what was merged come from a store, and may be anything.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"rows":1,"rejections":{"Total":0,"Kinds":null},"apart":{"Lines":0,"Rows":0,"First":0}}`))
	f.Add([]byte(`{"apps":{"found":{"read":0,"lines":0,"rows":0,"rejections":{"Total":0,"Kinds":null},"sample":[]}},"users":{"found":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeRecord(data); err == nil && r.Rows < 0 {
			t.Errorf("%d rows", r.Rows)
		}
		j := &job{plan: &plan.Plan{Dim: 2}}
		if m, err := j.decodeMerged(data); err == nil && (m.Apps.Found == nil || m.Users.Found == nil) {
			t.Error("nothing was found")
		}
	})
}
