package builder_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Inputs are not at fault if the store that they are in fails, at any request for them: a scheduler
// may try each step again, and once the store answers the build is that of files.
func TestInputsInAStoreThatFails(t *testing.T) {
	tw := syntheticTowers(t, 60, 30)
	o := tw.options(t, "1")
	o.Threads, o.Tool = 1, "tandem v1"
	o.Interactions = []string{tw.interactions}
	_, want := build(t, o)

	f := objectstest.NewFaults()
	at := f.Location(t)
	place := func(path string) string {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		f.Put(filepath.Base(path), data, time.Now())
		return at + "/" + filepath.Base(path)
	}
	o.Apps.Input.Paths = []string{place(o.Apps.Input.Paths[0])}
	o.Users.Input.Paths = []string{place(o.Users.Input.Paths[0])}
	o.Interactions = []string{place(tw.interactions)}
	dir := t.TempDir()
	for name, rule := range map[string]objectstest.Rule{
		"busy":      {Err: objectstest.ErrBusy},
		"denied":    {Err: objectstest.ErrDenied},
		"reset":     {Err: objectstest.ErrInjected},
		"silent":    {Fault: objectstest.Hang},
		"cut":       {Fault: objectstest.Cut, Bytes: 10},
		"too short": {Fault: objectstest.Short, Bytes: 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the store is waited for
				store, err := snapshots.CreateStore(t.Context(), filepath.Join(dir, name), snapshots.Options{})
				require.NoError(t, err)
				defer store.Close()
				id, failed := "", 0
				steps := func(do func(*builder.Steps) error) func() error {
					return func() error {
						s, err := builder.OpenSteps(t.Context(), store, id, builder.StepOptions{Tool: o.Tool})
						if err != nil {
							return err
						}
						return do(s)
					}
				}
				var report *builder.Report
				partition := func(s *builder.Steps) error {
					for i := range s.Plan().Tasks {
						if err := s.Partition(t.Context(), i); err != nil {
							return err
						}
					}
					return nil
				}
				shards := func(s *builder.Steps) error {
					for i := range s.Plan().Shards() {
						if err := s.Shard(t.Context(), i); err != nil {
							return err
						}
					}
					return nil
				}
				commit := func(s *builder.Steps) (err error) {
					report, err = s.Commit(t.Context(), builder.CommitOptions{})
					return err
				}
				for step, do := range []func() error{
					func() error {
						_, planned, err := builder.MakePlan(t.Context(), store, o, 1)
						id = string(planned)
						return err
					},
					steps(partition), steps(shards), steps(commit),
				} {
					for answered := 0; ; answered++ {
						failing := rule
						failing.Skip = answered
						f.Inject(failing)
						err := do()
						f.Heal()
						if err == nil {
							break
						}
						failed++
						require.NotErrorAs(t, err, new(*builder.RefusedError), "step %d, after %d requests", step, answered)
					}
				}
				require.Greater(t, failed, 5, "the store failed too seldom")
				require.Equal(t, want.Digest, report.Digest, fmt.Sprintf("%+v", report))
			})
		})
	}
}
