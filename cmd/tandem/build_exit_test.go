package main

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/input"
)

// A scheduler tries a build again where that may help, and only there: inputs that are at fault are the same next
// time, and files that were being written are not.
func TestExitOfInputs(t *testing.T) {
	atFault := builder.AtFault(errors.New("row 7 cannot be read"))
	changed := builder.AtFault(fmt.Errorf("apps.parquet %w", input.ErrChanged))
	failed := builder.AtFault(fmt.Errorf("read apps.parquet: %w", syscall.EIO))
	for _, c := range []struct {
		err         error
		whole, step int
	}{{atFault, 5, 5}, {changed, 1, 5}, {failed, 1, 1}} {
		require.Equal(t, c.whole, report(t.Context(), io.Discard, "tandem build", inputsError(c.err)), "%v", c.err)
		require.Equal(t, c.step, report(t.Context(), io.Discard, "tandem build shard", stepError(c.err)), "%v", c.err)
	}
}
