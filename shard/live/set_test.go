package live

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// check compares a set with a map, and looks whether it is as its comment says.
func check(t require.TestingT, s *set, want map[string]string) {
	require.Equal(t, len(want), s.count)
	got := map[string]string{}
	last, first := item{}, true
	for i := range s.all() {
		require.True(t, first || last.compare(i) < 0, "in order")
		require.Equal(t, hashKey(i.key), i.hash)
		got[i.key], last, first = i.value, i, false
	}
	require.Equal(t, want, got)
	var none []string
	for i := range 100 {
		key := fmt.Sprint("none ", i)
		if _, there := want[key]; !there {
			_, ok := s.find(key)
			require.False(t, ok)
			none = append(none, key)
		}
	}
	require.False(t, s.hasAny(none))
	i := 0
	for key, value := range want {
		found, ok := s.find(key)
		require.True(t, ok, key)
		require.Equal(t, value, found)
		i = (i + 1) % len(none)
		before := none[i]
		none[i] = key
		require.True(t, s.hasAny(none), key)
		none[i] = before
	}
}

// A set is a map, whatever is put in and taken out, and what it was before stays as it was.
func TestSetIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s set
		want := map[string]string{}
		type past struct {
			set  set
			want map[string]string
		}
		var before []past
		keys := rapid.IntRange(1, 3000).Draw(t, "keys")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			before = append(before, past{s, maps.Clone(want)})
			changes := map[string]item{}
			for range rapid.IntRange(0, 1500).Draw(t, "size") {
				key := fmt.Sprint("key ", random.IntN(keys))
				i := item{hash: hashKey(key), key: key, gone: random.IntN(3) == 0}
				if !i.gone {
					i.value = strings.Repeat("v", random.IntN(5)) + fmt.Sprint(random.IntN(10))
				}
				changes[key] = i
			}
			s = s.with(slices.Collect(maps.Values(changes)))
			for key, i := range changes {
				if i.gone {
					delete(want, key)
				} else {
					want[key] = i.value
				}
			}
			check(t, &s, want)
		}
		for _, b := range before {
			check(t, &b.set, b.want)
		}
		f := fill(len(want))
		for i := range s.all() {
			f.add(i)
		}
		filled := f.end()
		check(t, &filled, want)
		more := filled.with([]item{{hash: hashKey("more"), key: "more", value: "!"}})
		want["more"] = "!"
		check(t, &more, want)
	})
}

// Keys whose hashes begin alike, as somebody may choose them, do not make the directory
// large.
func TestSetOfHashesThatAreAlike(t *testing.T) {
	var list []item
	for i := range 5000 {
		key := fmt.Sprint(i)
		list = append(list, item{hash: 7<<40 | uint64(i), key: key, value: key})
	}
	s := set{}.with(list)
	assert.Equal(t, 5000, s.count)
	slots := 0
	for _, chunk := range s.chunks {
		slots += len(chunk)
	}
	assert.Less(t, slots, 5000)
}

func takenDown(n int) TakenDown {
	texts := newTexts()
	f := fill(n)
	list := make([]item, n)
	for i := range list {
		key := appName(i)
		list[i] = item{hash: hashKey(key), key: key, value: texts.encode(Down{uint64(i + 1), noon, fmt.Sprint("reason ", i%100), "moderator"})}
	}
	slices.SortFunc(list, item.compare)
	for _, i := range list {
		f.add(i)
	}
	return TakenDown{&downs{f.end(), texts.list}}
}

func appName(i int) string { return fmt.Sprintf("com.example.app%07d", i) }

func TestTakenDownAllocatesNothing(t *testing.T) {
	d := takenDown(1000)
	f := Forgotten{&forgotten{d.set, newHashKeys(testKey)}}
	ids := []string{"other", "another", "com.example.app0000500"}
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if !d.Has("com.example.app0000500") || d.Has("other") || f.Has("user") {
			t.Error("wrong")
		}
		if !d.HasAny(ids) || d.HasAny(ids[:2]) || f.HasAny(ids) {
			t.Error("wrong of several")
		}
	}))
	var none TakenDown
	assert.False(t, none.Has("a"))
	assert.False(t, none.HasAny(ids))
	assert.Zero(t, none.Len())
	var nobody Forgotten
	assert.False(t, nobody.Has("u"))
}

func TestTakenDownIsSorted(t *testing.T) {
	d := takenDown(5000)
	n := 0
	for id, down := range d.All() {
		assert.Equal(t, appName(n), id)
		assert.Equal(t, Down{uint64(n + 1), noon, fmt.Sprint("reason ", n%100), "moderator"}, down)
		n++
	}
	assert.Equal(t, 5000, n)
}

// Texts that differ in each takedown are kept with it.
func TestManyTexts(t *testing.T) {
	texts := newTexts()
	d := &downs{}
	for i := range 3 * maxTexts {
		down := Down{uint64(i + 1), noon, fmt.Sprint("reason ", i), "moderator"}
		value := texts.encode(down)
		d.texts = texts.list
		assert.Equal(t, down, d.decode(value))
	}
	assert.Len(t, texts.list, maxTexts)
}

// cpu returns how long this process has computed, which a machine that is busy does not
// change much.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// heap returns how many bytes of the heap are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkHas(b *testing.B) {
	for _, n := range []int{100_000, 10_000_000} {
		before := heap()
		d := takenDown(n)
		bytes := heap() - before
		var absent, present [4096]string
		for i := range absent {
			absent[i], present[i] = fmt.Sprintf("com.example.other%07d", i*977), appName(rand.IntN(n))
		}
		for name, ids := range map[string]*[4096]string{"absent": &absent, "present": &present} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				b.ReportMetric(float64(bytes)/float64(n), "B/takedown")
				found := 0
				used := cpu()
				for i := 0; b.Loop(); i++ {
					if d.Has(ids[i&4095]) {
						found++
					}
				}
				b.ReportMetric(float64(cpu()-used)/float64(b.N), "cpu-ns/op")
			})
		}
		b.Run(fmt.Sprintf("%d/absent, 100 at once", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i = (i + 100) % (len(absent) - 100) {
				if d.HasAny(absent[i : i+100]) {
					b.Fatal("wrong")
				}
			}
		})
		runtime.KeepAlive(d)
	}
}

// Taking apps down among ten million, a thousand an entry and one alone.
func BenchmarkTakeDown(b *testing.B) {
	d := takenDown(10_000_000)
	for _, size := range []int{1, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			s := d.set
			for i := 0; b.Loop(); i++ {
				list := make([]item, size)
				for j := range list {
					key := fmt.Sprint("new ", i, " ", j)
					list[j] = item{hash: hashKey(key), key: key, value: "123456789012"}
				}
				s = s.with(list)
			}
		})
	}
}
