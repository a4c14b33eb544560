package attack

import (
	"bytes"
	"compress/gzip"
	"math/rand/v2"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// bank keeps what takes long to make and is sent often.
type bank struct {
	mu   sync.Mutex
	kept map[string]func() []byte
}

func newBank() *bank { return &bank{kept: map[string]func() []byte{}} }

// get returns what is kept by a name, and makes it first if nothing is.
func (b *bank) get(name string, make func() []byte) []byte {
	b.mu.Lock()
	f := b.kept[name]
	if f == nil {
		f = sync.OnceValue(make)
		b.kept[name] = f
	}
	b.mu.Unlock()
	return f()
}

// kept returns what make makes from one of a number of generators, which only the seed
// and the name decide.
func (a *attacker) kept(name string, variants int, make func(r *rand.Rand) []byte) (string, []byte) {
	name += "/" + string(rune('a'+a.rand.IntN(variants)))
	return name, a.bank.get(name, func() []byte {
		return make(rand.New(rand.NewPCG(a.options.Seed, xxhash.Sum64String(name))))
	})
}

// compress compresses data. Few names of encodings are known: others leave it as it is.
func compress(encoding string, data []byte) []byte {
	var out bytes.Buffer
	switch encoding {
	case "gzip":
		w := gzip.NewWriter(&out)
		_, _ = w.Write(data) // a bytes.Buffer takes everything
		_ = w.Close()
	case "zstd":
		w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(err) // the options are wrong
		}
		_, _ = w.Write(data) // as above
		_ = w.Close()
	default:
		return data
	}
	return out.Bytes()
}

// compressed is compress for what is kept by a name, or "" for what is not.
func (a *attacker) compressed(name, encoding string, data []byte) []byte {
	if name == "" || encoding == "" {
		return compress(encoding, data)
	}
	return a.bank.get(name+"."+encoding, func() []byte { return compress(encoding, data) })
}

// zeros is a bomb: compressed zeros that are a number of MiB, in one or more members.
func zeros(encoding string, mib, members int) []byte {
	one := make([]byte, mib<<20)
	return bytes.Repeat(compress(encoding, one), members)
}
