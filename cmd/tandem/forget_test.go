package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// needle is something of a user, as bytes that an object may have.
type needle struct {
	of    string // "id", "vector" or "hash"
	bytes []byte
}

// needlesOf returns what an object has that has an id, in clear or as text of one of the
// encodings that are in use.
func needlesOf(of string, data []byte) []needle {
	list := []needle{{of, data}, {of, []byte(hex.EncodeToString(data))}, {of, []byte(strings.ToUpper(hex.EncodeToString(data)))}}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 { // where in a longer text it is
			text := encoding.EncodeToString(append(make([]byte, shift), data...))
			whole := text[(8*shift+5)/6 : 8*(shift+len(data))/6] // without what its neighbours have a part in
			list = append(list, needle{of, []byte(whole)})
		}
	}
	return list
}

// haystack is what a store has under one name, decoded as far as anything in it is.
type haystack struct {
	parts [][]byte
}

func (h *haystack) add(data []byte) { h.parts = append(h.parts, data) }

// readHaystack reads an object, and every value in it: of JSON, of CBOR, of Parquet, and of
// what is compressed.
func readHaystack(path string) (*haystack, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h := &haystack{}
	h.add(data)
	switch filepath.Ext(path) {
	case ".json":
		var document any
		if err := json.Unmarshal(data, &document); err != nil && len(data) > 0 {
			return nil, err
		}
		h.value(document)
	case ".parquet":
		err = h.parquet(data)
	case ".log":
		if plain, unpackErr := unpacked(data); unpackErr == nil { // a checkpoint
			data = plain
			h.add(data)
		}
		err = h.sequence(data)
	case ".shard":
		// What is in its sections is neither compressed nor encoded.
	}
	return h, err
}

// unpacked returns the content of the frames of zstd in data.
func unpacked(data []byte) ([]byte, error) {
	r, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// sequence adds the values of a sequence of CBOR items.
func (h *haystack) sequence(data []byte) error {
	for len(data) > 0 {
		var item any
		rest, err := cbor.UnmarshalFirst(data, &item)
		if err != nil {
			return err
		}
		h.value(item)
		data = rest
	}
	return nil
}

func (h *haystack) value(v any) {
	switch v := v.(type) {
	case string:
		h.add([]byte(v))
	case []byte:
		h.add(v)
		var nested any
		if len(v) > 0 && cbor.Unmarshal(v, &nested) == nil {
			h.value(nested)
		}
	case []any:
		for _, v := range v {
			h.value(v)
		}
	case map[string]any:
		for k, v := range v {
			h.add([]byte(k))
			h.value(v)
		}
	case map[any]any:
		for k, v := range v {
			h.value(k)
			h.value(v)
		}
	}
}

// parquet adds the values of every page of every column.
func (h *haystack) parquet(data []byte) error {
	table, err := pqarrow.ReadTable(context.Background(), bytes.NewReader(data), nil, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	defer table.Release()
	for i := range int(table.NumCols()) {
		for _, chunk := range table.Column(i).Data().Chunks() {
			for row := range chunk.Len() {
				if of, is := chunk.(*array.Binary); is {
					h.add(bytes.Clone(of.Value(row)))
				} else {
					h.add([]byte(chunk.ValueStr(row)))
				}
			}
		}
	}
	return nil
}

// find returns what objects of a store have of what, by their folder.
func find(dir string, needles []needle) (map[string][]string, error) {
	found := map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h, err := readHaystack(path)
		if err != nil {
			return errors.Join(errors.New(name), err)
		}
		h.add([]byte(name))
		folder, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		for _, n := range needles {
			if slices.ContainsFunc(h.parts, func(part []byte) bool { return bytes.Contains(part, n.bytes) }) && !slices.Contains(found[folder], n.of) {
				found[folder] = append(found[folder], n.of)
			}
		}
		return nil
	})
	return found, err
}

// holds STORE ID [-v VECTOR]... [FOLDER:WHAT,...]... decodes every object of a store in a
// folder and fails unless those under the folders, and no others, have what of a user: id,
// vector (one of those given, as numbers) or hash.
func holds(ts *testscript.TestScript, _ bool, args []string) {
	dir, id := ts.MkAbs(args[0]), args[1]
	needles := needlesOf("id", []byte(id))
	if key, err := os.ReadFile(filepath.Join(dir, "live", "key")); err == nil {
		hash := live.HashUser(key[:live.KeySize], id)
		needles = append(needles, needlesOf("hash", hash[:])...)
	}
	want := map[string][]string{}
	for args = args[2:]; len(args) > 0; args = args[1:] {
		if args[0] == "-v" {
			var data []byte
			for text := range strings.SplitSeq(args[1], ",") {
				x, err := strconv.ParseFloat(text, 32)
				ts.Check(err)
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(x)))
			}
			needles = append(needles, needlesOf("vector", data)...)
			args = args[1:]
			continue
		}
		folder, what, _ := strings.Cut(args[0], ":")
		want[folder] = strings.Split(what, ",")
	}
	found, err := find(dir, needles)
	ts.Check(err)
	for _, list := range []map[string][]string{want, found} {
		for _, what := range list {
			slices.Sort(what)
		}
	}
	if !maps.EqualFunc(found, want, slices.Equal[[]string]) {
		ts.Fatalf("%s has of %s %v, want %v", args, id, found, want)
	}
}

// vectorOf VAR STORE ID sets a variable to the vector of a user in the newest snapshot.
func vectorOf(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	store, err := snapshots.OpenStore(ctx, ts.MkAbs(args[1]), snapshots.Options{})
	ts.Check(err)
	digest, err := store.Resolve(ctx, "")
	ts.Check(err)
	s, err := snapshots.Open(ctx, store, digest)
	ts.Check(err)
	row, ok := probe.Find(s.Tower(shard.Users), args[2])
	if !ok {
		ts.Fatalf("snapshot %s has no user %s", digest, args[2])
	}
	var numbers []string
	for _, x := range row.Vector() {
		numbers = append(numbers, strconv.FormatFloat(float64(x), 'g', -1, 32))
	}
	ts.Check(errors.Join(s.Close(), store.Close()))
	ts.Setenv(args[0], strings.Join(numbers, ","))
}

// What looks for a user finds one, in whatever form.
func TestFind(t *testing.T) {
	const id = "user-0000012"
	encoded, err := cbor.Marshal(map[int]any{1: []any{id}})
	require.NoError(t, err)
	nested, err := cbor.Marshal([]any{1, encoded})
	require.NoError(t, err)
	packed, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	for name, data := range map[string][]byte{
		"a/clear":    []byte("before" + id + "after"),
		"b/hex.json": []byte(`"` + hex.EncodeToString([]byte(id)) + `"`),
		"c/one":      []byte(base64.StdEncoding.EncodeToString([]byte("x" + id + "y"))),
		"d/two":      []byte(base64.URLEncoding.EncodeToString([]byte("xx" + id + "yy"))),
		"e/three":    []byte(base64.StdEncoding.EncodeToString([]byte("xxx" + id + "yyy"))),
		"f/esc.json": []byte(`{"pins": ["user\u002d0000012"]}`),
		"g/1.log":    append([]byte{0x01}, nested...),
		"h/1.log":    packed.EncodeAll(nested, nil),
		"i/" + id:    nil,
		"j/none":     []byte("user-000001 2"),
		"k/none":     []byte(base64.StdEncoding.EncodeToString([]byte("user-0000112 xuser-0000112 xxuser-0000112"))),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o600))
		found, err := find(dir, needlesOf("id", []byte(id)))
		require.NoError(t, err)
		if strings.HasSuffix(name, "/none") {
			require.Empty(t, found)
			continue
		}
		require.Equal(t, map[string][]string{name[:1]: {"id"}}, found)
	}
	require.NoError(t, packed.Close())
}
