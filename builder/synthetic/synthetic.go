// Package synthetic generates two towers of any size, with attributes and
// interactions, for `tandem generate`, the demo and tests.
//
// The towers are of the kind a trained model gives. Apps lie around some tens to
// hundreds of cluster directions, whose sizes fall like Zipf's law and which lie
// around fewer genre directions; an app's norm follows its popularity. A user
// mixes one to four clusters. So an inner product is a plausible preference,
// and what users played agrees with it.
//
// Everything about row i is computed from the seed and i alone: rows may be
// generated in any order, in any chunks and by several Generators at once, and
// memory does not grow with the number of rows. A keyed permutation, which is
// computed in both directions, gives each app a place in a list that is sorted by
// cluster and, within a cluster, by popularity, so that the apps of a user's
// interests can be drawn by popularity without the list.
// Results are the same on every machine of one architecture.
//
// [Write] writes apps.parquet, users.parquet and interactions.parquet; a
// [Generator] yields single rows.
package synthetic

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// A NormLaw is how the norms of apps follow popularity. Real models have all
// three, and graphs over inner product depend on it.
type NormLaw uint8

// The norm laws.
const (
	Rising  NormLaw = iota // popular apps have long vectors
	Falling                // popular apps have short vectors
	Flat                   // norms do not depend on popularity
)

var normLaws = []string{Rising: "rising", Falling: "falling", Flat: "flat"}

// String returns the law's name.
func (l NormLaw) String() string {
	if int(l) < len(normLaws) {
		return normLaws[l]
	}
	return fmt.Sprintf("NormLaw(%d)", uint8(l))
}

// MarshalText implements [encoding.TextMarshaler].
func (l NormLaw) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (l *NormLaw) UnmarshalText(text []byte) error {
	i := slices.Index(normLaws, string(text))
	if i < 0 {
		return fmt.Errorf("norm law %q: want one of %s", text, strings.Join(normLaws, ", "))
	}
	*l = NormLaw(i)
	return nil
}

// Options say what to generate.
type Options struct {
	Apps  int64
	Users int64
	// Dim is the dimension of the vectors. The default is 64.
	Dim int
	// Seed decides everything that the other options leave open.
	Seed uint64
	// Interactions is the mean number of interactions of a user. 0 is none.
	Interactions int
	// Clusters is the number of clusters of apps. The default grows with the
	// number of apps, from 16 to 256.
	Clusters int
	// Norms is how norms follow popularity. The default is Rising.
	Norms NormLaw
}

// Limits of the options.
const (
	MaxRows         = 1 << 32
	MaxDim          = 65536
	MaxInteractions = 10000
	MaxClusters     = 65536
)

// withDefaults returns the options with defaults filled in.
func (o Options) withDefaults() Options {
	if o.Dim == 0 {
		o.Dim = 64
	}
	if o.Clusters == 0 {
		o.Clusters = min(max(int(math.Sqrt(float64(o.Apps))/4), 16), 256)
	}
	return o
}

// Validate reports what is wrong with the options.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch {
	case o.Apps < 1 || o.Apps > MaxRows:
		return fmt.Errorf("apps is %d, want 1 to %d", o.Apps, int64(MaxRows))
	case o.Users < 1 || o.Users > MaxRows:
		return fmt.Errorf("users is %d, want 1 to %d", o.Users, int64(MaxRows))
	case o.Dim < 1 || o.Dim > MaxDim:
		return fmt.Errorf("dim is %d, want 1 to %d", o.Dim, MaxDim)
	case o.Interactions < 0 || o.Interactions > MaxInteractions:
		return fmt.Errorf("interactions is %d, want 0 to %d", o.Interactions, MaxInteractions)
	case o.Clusters < 1 || o.Clusters > MaxClusters:
		return fmt.Errorf("clusters is %d, want 1 to %d", o.Clusters, MaxClusters)
	case int(o.Norms) >= len(normLaws):
		return fmt.Errorf("norms is %v, want one of %s", o.Norms, strings.Join(normLaws, ", "))
	}
	return nil
}

// AppID returns the id of app i.
func AppID(i int64) string { return fmt.Sprintf("app-%07d", i) }

// UserID returns the id of user i.
func UserID(i int64) string { return fmt.Sprintf("user-%07d", i) }

// A Generator generates rows. It is not for concurrent use; several with equal
// options yield equal rows.
type Generator struct {
	options    Options
	genres     []float32 // directions, one after the other
	clusters   []float32
	cumulative []float64 // shares of the clusters up to and with each
	starts     []uint64  // the first place of each cluster, and the end
	places     permutation

	pcg rand.PCG
	rng *rand.Rand

	a, b  []float32 // vectors of candidates
	drawn []int64
}

// New returns a generator.
func New(o Options) (*Generator, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("synthetic towers: %w", err)
	}
	o = o.withDefaults()
	g := &Generator{
		options: o,
		places:  newPermutation(uint64(o.Apps), mix(o.Seed, uint64(placeStream))),
		a:       make([]float32, o.Dim),
		b:       make([]float32, o.Dim),
	}
	g.rng = rand.New(&g.pcg)
	g.genres = make([]float32, len(genres)*o.Dim)
	for i := range genres {
		g.seed(genreStream, int64(i))
		g.gaussian(g.row(g.genres, i))
		scale(g.row(g.genres, i), 1)
	}
	g.clusters = make([]float32, o.Clusters*o.Dim)
	total := 0.0
	for c := range o.Clusters {
		g.seed(clusterStream, int64(c))
		v := g.row(g.clusters, c)
		g.gaussian(v)
		scale(v, 0.8)
		add(v, 0.6, g.row(g.genres, genreOf(c)))
		scale(v, 1)
		total += 1 / math.Pow(float64(c+1), 0.8)
		g.cumulative = append(g.cumulative, total)
	}
	g.starts = make([]uint64, o.Clusters+1)
	for c := range g.cumulative {
		g.cumulative[c] /= total
		g.starts[c+1] = min(uint64(math.Round(g.cumulative[c]*float64(o.Apps))), uint64(o.Apps))
	}
	g.starts[o.Clusters] = uint64(o.Apps)
	return g, nil
}

// A stream is what a sequence of random numbers is for. Each stream of each row
// is independent of the others.
type stream uint64

const (
	genreStream stream = iota + 1
	clusterStream
	placeStream
	memberStream
	platformStream
	appVectorStream
	appStream
	interestStream
	userStream
	playStream
)

// seed starts the sequence of a stream of a row.
func (g *Generator) seed(s stream, row int64) {
	h := mix(g.options.Seed, uint64(s))
	g.pcg.Seed(mix(h, uint64(row)), mix(h, ^uint64(row)))
}

// mix hashes two words into one (the finaliser of SplitMix64, twice).
func mix(a, b uint64) uint64 { return finalize(finalize(a+0x9e3779b97f4a7c15) ^ b) }

func finalize(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// row returns vector i of a flat matrix.
func (g *Generator) row(matrix []float32, i int) []float32 {
	return matrix[i*g.options.Dim : (i+1)*g.options.Dim]
}

// gaussian fills v with a random vector whose expected norm is 1.
func (g *Generator) gaussian(v []float32) {
	s := 1 / math.Sqrt(float64(len(v)))
	for i := range v {
		v[i] = float32(g.rng.NormFloat64() * s)
	}
}

// scale gives v the norm n.
func scale(v []float32, n float64) {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		v[0], sum = 1, 1
	}
	f := float32(n / math.Sqrt(sum))
	for i := range v {
		v[i] *= f
	}
}

// add adds f*w to v.
func add(v []float32, f float32, w []float32) {
	for i := range v {
		v[i] += f * w[i]
	}
}

func dot(v, w []float32) (sum float32) {
	for i := range v {
		sum += v[i] * w[i]
	}
	return sum
}

// place returns the cluster of an app and its popularity rank among all apps,
// from 0. Clusters are equally popular, so that a rank among the apps of a
// cluster stands for as many ranks among all as the cluster is smaller.
func (g *Generator) place(app int64) (cluster int, rank float64) {
	p := g.places.forward(uint64(app))
	c, _ := slices.BinarySearch(g.starts, p+1)
	c-- // the last cluster that starts at p or before
	size := g.starts[c+1] - g.starts[c]
	h := mix(g.options.Seed^uint64(memberStream)<<32, uint64(app))
	within := float64(p-g.starts[c]) + float64(h>>11)/(1<<53)
	return c, within * float64(g.options.Apps) / float64(size)
}

// popularity returns 0 for the rank of the least popular app to 1 for the most
// popular. It is linear in the logarithm of the rank, as log-popularity is under
// Zipf's law.
func (g *Generator) popularity(rank float64) float64 {
	return 1 - math.Log1p(rank)/math.Log1p(float64(g.options.Apps))
}

// cluster returns the cluster that u, from 0 to 1, falls into.
func (g *Generator) cluster(u float64) int {
	c, _ := slices.BinarySearch(g.cumulative, u)
	return min(c, len(g.cumulative)-1)
}

// appVector sets v to the vector of an app.
func (g *Generator) appVector(v []float32, app int64) {
	g.seed(appVectorStream, app)
	g.gaussian(v)
	scale(v, 0.3+0.5*g.rng.Float64())
	cluster, rank := g.place(app)
	add(v, 1, g.row(g.clusters, cluster))
	if side, is := g.sideCluster(app); is {
		add(v, 0.5, g.row(g.clusters, side))
	}
	norm := 1.0
	switch g.options.Norms {
	case Rising:
		norm = 0.5 + 1.5*g.popularity(rank)
	case Falling:
		norm = 1.4 - 0.8*g.popularity(rank)
	}
	scale(v, norm*math.Exp(0.08*g.rng.NormFloat64()))
}

// sideCluster returns the second cluster that two in five apps have.
func (g *Generator) sideCluster(app int64) (c int, is bool) {
	h := mix(g.options.Seed^uint64(memberStream)<<33, uint64(app))
	return g.cluster(float64(h>>11) / (1 << 53)), h%5 < 2
}

// interests are the clusters that a user mixes, with weights that sum to 1.
type interests struct {
	n        int
	clusters [4]int
	weights  [4]float64
}

// interestsOf returns the interests of a user.
func (g *Generator) interestsOf(user int64) (in interests) {
	g.seed(interestStream, user)
	in.n = 1 + g.rng.IntN(4)
	sum := 0.0
	for i := range in.n {
		in.clusters[i] = g.cluster(g.rng.Float64())
		in.weights[i] = 0.3 + g.rng.Float64()
		sum += in.weights[i]
	}
	for i := range in.n {
		in.weights[i] /= sum
	}
	return in
}

// userVector sets v to the vector of a user. The random sequence is that of the
// interests, continued.
func (g *Generator) userVector(v []float32, user int64) interests {
	in := g.interestsOf(user)
	g.gaussian(v)
	scale(v, 0.25)
	for i := range in.n {
		add(v, float32(in.weights[i]), g.row(g.clusters, in.clusters[i]))
	}
	scale(v, math.Exp(0.2*g.rng.NormFloat64()))
	return in
}

// AppSchema returns the attributes of apps.
func AppSchema() attribute.Schema { return schemaOf(appFields) }

// UserSchema returns the attributes of users.
func UserSchema() attribute.Schema { return schemaOf(userFields) }

func schemaOf(fields []attribute.Field) attribute.Schema {
	s, err := attribute.NewSchema(fields)
	if err != nil {
		panic(err)
	}
	return s
}

// App sets row to app i, with attributes in the order of AppSchema. It reuses
// the row's slices.
func (g *Generator) App(i int64, row *tower.Row) {
	row.Number, row.ID = i, AppID(i)
	row.Vector = slices.Grow(row.Vector[:0], g.options.Dim)[:g.options.Dim]
	g.appVector(row.Vector, i)
	g.appAttributes(i, row)
}

// User sets row to user i, with attributes in the order of UserSchema. It reuses
// the row's slices.
func (g *Generator) User(i int64, row *tower.Row) {
	row.Number, row.ID = i, UserID(i)
	row.Vector = slices.Grow(row.Vector[:0], g.options.Dim)[:g.options.Dim]
	g.userVector(row.Vector, i)
	g.userAttributes(i, row)
}
