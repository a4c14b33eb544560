package engines

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// answer is what a driver writes.
func answer(head string, numbers ...any) []byte {
	b := bytes.NewBufferString(head + "\n")
	for _, n := range numbers {
		_ = binary.Write(b, binary.LittleEndian, n)
	}
	return b.Bytes()
}

func TestProtocol(t *testing.T) {
	said := bytes.NewBuffer(append([]byte("ready 1.5 4096\n"),
		answer("answer 2 3", []int32{7, 8, -1, 5, 4, 3}, []int64{100, 200}, []int64{30, -1})...))
	var asked bytes.Buffer
	c := newConnection(said, &asked)
	cost, err := c.ready()
	require.NoError(t, err)
	assert.Equal(t, Cost{BuildSeconds: 1.5, Bytes: 4096}, cost)
	var a answers
	require.NoError(t, c.ask(Setting{K: 3, Ef: 50}, 10, 2, true, &a))
	assert.Equal(t, answers{rows: []int32{7, 8, -1, 5, 4, 3}, nanos: []int64{100, 200}, distances: []int64{30, -1}}, a)
	require.NoError(t, c.quit())
	assert.Equal(t, "search 50 3 10 2 1\nquit\n", asked.String())
}

func TestProtocolOfEligibleRows(t *testing.T) {
	p := &Predicate{Name: "some", rows: index.Bitset{5, 1 << 63}, eligible: 3}
	var asked bytes.Buffer
	c := newConnection(bytes.NewBufferString("eligible 3\neligible 128\neligible 4\n"), &asked)
	require.NoError(t, c.give(p))
	require.NoError(t, c.give(nil))
	assert.Equal(t, "eligible 2\n\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80eligible 0\n", asked.String())
	assert.EqualError(t, c.give(p), "driver counts 4 eligible rows, want 3")
	assert.EqualError(t, c.give(p), "read eligible line of driver: unexpected EOF")
}

func TestProtocolErrors(t *testing.T) {
	for want, said := range map[string][]byte{
		"read answer line of driver: unexpected EOF":              nil,
		`driver says "ready 1 2", want a answer line`:             []byte("ready 1 2\n"),
		"driver answers 1 queries with 3 rows each, want 2 and 3": answer("answer 1 3", make([]int32, 3), make([]int64, 2)),
		"read answers of driver: unexpected EOF":                  answer("answer 2 3", int32(1)),
		`driver says "answer x 3": number 1: expected integer`:    []byte("answer x 3\n"),
	} {
		var asked bytes.Buffer
		c := newConnection(bytes.NewReader(said), &asked)
		err := c.ask(Setting{K: 3, Ef: 5}, 0, 2, false, &answers{})
		assert.EqualError(t, err, want)
	}
	c := newConnection(nil, nil)
	assert.EqualError(t, c.ask(Setting{K: 3}, 0, 1, false, &answers{}), "a driver takes no exact")
}

// program writes a driver that is a shell script.
func program(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "fake"), []byte("#!/bin/sh\n"+script), 0o755))
	return dir
}

func TestDriverProcess(t *testing.T) {
	s, err := ReadSet(t.Context(), writeSet(t, index.Dot, 30, 9, 3))
	require.NoError(t, err)
	spec := Spec{Name: "fake"}.withDefaults()

	o := Options{Drivers: program(t, `echo "no memory" >&2; exit 3`), Threads: 1}
	_, err = startDriver(t.Context(), spec, s, o, t.TempDir())
	assert.ErrorContains(t, err, "read ready line of driver: unexpected EOF")
	assert.ErrorContains(t, err, "driver fake: exit status 3: no memory")

	o.Drivers = program(t, `echo "ready 2 3"; read line; test "$line" = quit`)
	d, err := startDriver(t.Context(), spec, s, o, t.TempDir())
	require.NoError(t, err)
	assert.Equal(t, Cost{BuildSeconds: 2, Bytes: 3}, d.cost())
	require.NoError(t, d.Close())
	require.NoError(t, d.Close(), "closing again is fine")

	// One that cannot filter is left out, and what it said is told.
	o.Drivers = program(t, `echo "ready 2 3"; read line; echo "unknown command: $line" >&2; exit 1`)
	o.Engines, o.K, o.Rounds = []Spec{{Name: Tandem}, spec}, []int{2}, 1
	r, err := RunFilters(t.Context(), s, []*Predicate{predicateOf(s, "some", 1, 2, 3, 4, 5)}, o)
	require.NoError(t, err)
	require.Len(t, r.Notes, 1)
	assert.Contains(t, r.Notes[0], "fake is left out: it cannot search among eligible rows: read eligible line of driver: unexpected EOF")
	assert.Contains(t, r.Notes[0], "driver fake: exit status 1: unknown command: eligible 1")

	// A driver that hangs ends with the context.
	o.Drivers = program(t, `echo "ready 2 3"; read line; exec sleep 60`)
	ctx, cancel := context.WithCancel(t.Context())
	d, err = startDriver(ctx, spec, s, o, t.TempDir())
	require.NoError(t, err)
	cancel()
	assert.ErrorIs(t, d.search(ctx, Setting{K: 1, Ef: 1}, 0, 1, false, &answers{}), context.Canceled)
}
