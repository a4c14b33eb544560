package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
	"github.com/tandem-ann/tandem/shard/wording"
)

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB", 3 << 29: "1.5 GiB", 1<<63 - 1: "8.0 EiB"} {
		assert.Equal(t, want, wording.Bytes(n))
	}
	assert.Equal(t, "59.9s", wording.Seconds(59900*time.Millisecond))
	assert.Equal(t, "1m2s", wording.Seconds(62100*time.Millisecond))
	assert.Equal(t, "", bar(0))
	assert.Equal(t, ".", bar(0.001))
	assert.Len(t, bar(1), barWidth)
}

func TestBindings(t *testing.T) {
	got, err := bindings([]string{"age=17", "user.country=\"US\"", "score=1.5", "big=1e3", "free=true", `tags=["a", 2, false]`})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{
		"age": int64(17), "country": "US", "score": 1.5, "big": 1000.0, "free": true, "tags": []any{"a", int64(2), false},
	}, got)
	for flag, want := range map[string]string{
		"age":         "--bind age: want NAME=JSON",
		"=1":          "--bind =1: want NAME=JSON",
		"c=US":        `--bind c=US: US is not JSON; a string needs its quotes: --bind 'c="US"'`,
		"c=1 2":       `--bind c=1 2: 1 2 is not JSON; a string needs its quotes: --bind 'c="1 2"'`,
		"c=null":      "--bind c=null: want a string, a number, a bool or a list of them",
		`c={"a": 1}`:  `--bind c={"a": 1}: want a string, a number, a bool or a list of them`,
		`c=[[1]]`:     "--bind c=[[1]]: want a string, a number, a bool or a list of them",
		`c=[null, 1]`: "--bind c=[null, 1]: want a string, a number, a bool or a list of them",

		"c=9223372036854775808":       "--bind c=9223372036854775808: 9223372036854775808 is not from -9223372036854775808 to 9223372036854775807; a larger number needs a point or an exponent",
		"c=[1, -9223372036854775809]": "--bind c=[1, -9223372036854775809]: -9223372036854775809 is not from -9223372036854775808 to 9223372036854775807; a larger number needs a point or an exponent",
		"c=1e999":                     "--bind c=1e999: 1e999 is beyond the float64 range",
	} {
		_, err := bindings([]string{flag})
		assert.EqualError(t, err, want)
		assert.ErrorAs(t, err, new(usageError))
	}
	// All digits of an int arrive, as a number or as a string.
	values, err := bindings([]string{"a=9007199254740993", "b=-9007199254740992", "c=9007199254740991", "d=[1, 9223372036854775807, 1e16]"})
	require.NoError(t, err)
	wire, err := wireBindings(values)
	require.NoError(t, err)
	assert.Equal(t, "9007199254740993", wire["a"].AsInterface())
	assert.Equal(t, "-9007199254740992", wire["b"].AsInterface())
	assert.Equal(t, 9007199254740991.0, wire["c"].AsInterface())
	assert.Equal(t, []any{1.0, "9223372036854775807", 1e16}, wire["d"].AsInterface())
	assert.Equal(t, []any{int64(1), int64(9223372036854775807), 1e16}, values["d"], "what is bound here stays as it is")
	_, err = bindings([]string{"a=1", "user.a=2"})
	assert.EqualError(t, err, "--bind user.a=2: a is bound twice")
}

func TestKeyType(t *testing.T) {
	for _, want := range []hnswexport.KeyType{hnswexport.Auto, hnswexport.String, hnswexport.Int, hnswexport.Int64, hnswexport.Uint64, hnswexport.Int32, hnswexport.Uint32} {
		got, err := hnswexport.ParseKeyType(want.String())
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

func TestPlainProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := &lines{w: &out}
		l.Stage("read apps", 10_000)
		time.Sleep(2 * time.Second)
		l.Step(3000)
		time.Sleep(1500 * time.Millisecond) // a line at 3s
		l.Stage("calibrate apps", -1)
		time.Sleep(4 * time.Second) // a line at 6s, after 2.5s of nothing
		l.Step(29_000)
		time.Sleep(2 * time.Second) // a line at 9s
		l.Stage("read users", 100_000)
		time.Sleep(2 * time.Second)
		l.Step(50)
		time.Sleep(1100 * time.Millisecond) // a line at 12s; what 0.05% took tells nothing
		l.Stage("publish", 100)
		l.Note("3 rows are odd")
		time.Sleep(2800 * time.Millisecond) // a line at 15s
		l.Done()
		l.Done()
		time.Sleep(time.Minute)
		assert.Equal(t, `read apps: 3,000 of 10,000 (30%), 1,000/s, 7.0s left
calibrate apps: for 2.5s
calibrate apps: 29,000, 5,272/s
read users: 50 of 100,000 (0%), 20/s
note: 3 rows are odd
publish: 0 of 100 (0%)
`, out.String())
	})
}

func TestBarsEndWithAClearLine(t *testing.T) {
	var out bytes.Buffer
	b := &bars{w: &out}
	b.Note("nothing runs yet")
	b.Step(3)
	b.Stage("read apps", 10)
	b.Step(5)
	b.Note("odd")
	b.Stage("index apps", -1)
	b.Step(5)
	b.Done()
	b.Done()
	assert.Contains(t, out.String(), "note: nothing runs yet\n")
	assert.Contains(t, out.String(), "read apps")
	assert.Contains(t, out.String(), "note: odd\n")
}
