package capacity

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// Scenario is what is to be served.
type Scenario struct {
	// Apps and Users are rows of the towers, of Dim components of Element each.
	Apps    int64   `json:"apps"`
	Users   int64   `json:"users"`
	Dim     int     `json:"dim"`
	Element Element `json:"element"`
	// Degree is the M of graphs.
	Degree int `json:"m"`
	// AppAttributes and UserAttributes are those of rows, and Segments how many there are of apps.
	AppAttributes  []Attribute `json:"app_attributes"`
	UserAttributes []Attribute `json:"user_attributes"`
	Segments       int         `json:"segments"`
	// Shards are of the app tower and UserShards of the user tower, 0 for as many as there are shards
	// of ShardRows rows.
	Shards     int   `json:"shards"`
	UserShards int   `json:"user_shards"`
	ShardRows  int64 `json:"shard_rows"`
	// QPS are queries a second at the peak, which ask for K candidates at a recall of Recall.
	QPS    float64 `json:"qps"`
	K      int     `json:"k"`
	Recall float64 `json:"recall"`
	// Replicas of each shard are on different nodes, in as many zones as there are.
	Replicas int `json:"replicas"`
	Zones    int `json:"zones"`
	// Nodes are how many there are, 0 for as many as it takes.
	Nodes int `json:"nodes"`
	// Instances are what nodes and routers may run on.
	Instances []Instance `json:"instances"`
	// Prices are those of the store.
	Prices Prices `json:"prices"`
	// Queries are how many are simulated.
	Queries int    `json:"queries"`
	Seed    uint64 `json:"seed"`
}

// Element is what a component of a vector is stored as.
type Element string

// The elements.
const (
	Float32 Element = "float32"
	Float16 Element = "float16"
	Uint8   Element = "uint8"
)

func (e Element) bytes() float64 {
	switch e {
	case Float16:
		return 2
	case Uint8:
		return 1
	}
	return 4
}

// Attribute is one of a tower.
type Attribute struct {
	Name string         `json:"name"`
	Type attribute.Type `json:"type"`
	// Values are how many different ones there are in a shard, and Bytes how long one is, of a
	// keyword or a list. Each is how many a row has, of a list.
	Values int64   `json:"values,omitempty"`
	Bytes  float64 `json:"bytes,omitempty"`
	Each   float64 `json:"each,omitempty"`
	// Present is the share of the rows that have it.
	Present float64 `json:"present"`
}

// Instance is a machine that can be had.
type Instance struct {
	Name   string  `json:"name"`
	VCPU   int     `json:"vcpu"`
	Memory int64   `json:"memory"` // bytes
	Price  float64 `json:"price"`  // an hour
}

// Prices are what a store costs, in the same money as instances. Those that nobody gave are 0.
type Prices struct {
	Put      float64 `json:"put"`      // of 1,000 requests that write or list
	Get      float64 `json:"get"`      // of 1,000 requests that read
	Stored   float64 `json:"stored"`   // of a GB for a month
	Transfer float64 `json:"transfer"` // of a GB that is downloaded
}

func (p Prices) given() bool { return p != Prices{} }

// More bounds.
const (
	maxApps       = 1 << 40
	maxShards     = 4096
	maxAttributes = 256
	maxSegments   = 256
	maxReplicas   = 16
	maxZones      = 64
	maxNodes      = 4096
	maxInstances  = 64
	maxQPS        = 1e8
	maxName       = 64
	maxMoney      = 1e9
)

// Validate returns an error that names the field, its value, and what is accepted.
func (s *Scenario) Validate() error {
	for _, f := range []struct {
		name             string
		value, low, high float64
	}{
		{"apps", float64(s.Apps), 1, maxApps},
		{"users", float64(s.Users), 1, maxApps},
		{"dim", float64(s.Dim), 1, maxDim},
		{"m", float64(s.Degree), 2, 128},
		{"segments", float64(s.Segments), 0, maxSegments},
		{"shards", float64(s.Shards), 0, maxShards},
		{"user shards", float64(s.UserShards), 0, maxShards},
		{"shard rows", float64(s.ShardRows), 1, maxRows},
		{"qps", s.QPS, 0.001, maxQPS},
		{"k", float64(s.K), 1, maxK},
		{"recall", s.Recall, 0.5, 0.99999},
		{"replicas", float64(s.Replicas), 1, maxReplicas},
		{"zones", float64(s.Zones), 1, maxZones},
		{"nodes", float64(s.Nodes), 0, maxNodes},
		{"queries", float64(s.Queries), 100, 1_000_000},
		{"the price of writes", s.Prices.Put, 0, maxMoney},
		{"the price of reads", s.Prices.Get, 0, maxMoney},
		{"the price of a GB for a month", s.Prices.Stored, 0, maxMoney},
		{"the price of a GB that is downloaded", s.Prices.Transfer, 0, maxMoney},
	} {
		if !(f.value >= f.low && f.value <= f.high) { // NaN is neither
			return fmt.Errorf("%s is %v, want %v to %v", f.name, f.value, f.low, f.high)
		}
	}
	if !slices.Contains([]Element{Float32, Float16, Uint8}, s.Element) {
		return fmt.Errorf("element is %.64q, want %s, %s or %s", s.Element, Float32, Float16, Uint8)
	}
	for _, tower := range []struct {
		name   string
		rows   int64
		shards int64
		each   float64
	}{{"apps", s.Apps, s.shards(), s.appRows()}, {"users", s.Users, s.userShards(), s.userRows()}} {
		if tower.shards > maxShards || tower.shards > tower.rows {
			return fmt.Errorf("%d %s are in %d shards, want 1 to %d, and no more than there are rows", tower.rows, tower.name, tower.shards, maxShards)
		}
		if tower.each > maxRows {
			return fmt.Errorf("%d %s in %d shards are more than %d rows a shard, want more shards", tower.rows, tower.name, tower.shards, maxRows)
		}
	}
	if len(s.AppAttributes) > maxAttributes || len(s.UserAttributes) > maxAttributes {
		return fmt.Errorf("there are %d attributes of apps and %d of users, want at most %d", len(s.AppAttributes), len(s.UserAttributes), maxAttributes)
	}
	for _, a := range slices.Concat(s.AppAttributes, s.UserAttributes) {
		if err := a.validate(); err != nil {
			return err
		}
	}
	if len(s.Instances) == 0 || len(s.Instances) > maxInstances {
		return fmt.Errorf("there are %d instances, want 1 to %d", len(s.Instances), maxInstances)
	}
	for i, one := range s.Instances {
		if err := one.validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(s.Instances[:i], func(o Instance) bool { return o.Name == one.Name }) {
			return fmt.Errorf("instance %q is there twice, want every name once", one.Name)
		}
	}
	return nil
}

func (a Attribute) validate() error {
	text := a.Type == attribute.Keyword || a.Type == attribute.KeywordList
	switch {
	case a.Name == "" || len(a.Name) > maxName:
		return fmt.Errorf("the name of an attribute has %d bytes, want 1 to %d", len(a.Name), maxName)
	case text && (a.Values < 1 || a.Values > maxRows):
		return fmt.Errorf("attribute %q has %d values, want 1 to %d", a.Name, a.Values, maxRows)
	case text && !(a.Bytes >= 0 && a.Bytes <= 1<<20):
		return fmt.Errorf("values of attribute %q have %v bytes, want 0 to %d", a.Name, a.Bytes, 1<<20)
	case a.Type == attribute.KeywordList && !(a.Each > 0 && a.Each <= float64(a.Values)):
		return fmt.Errorf("a row has %v values of attribute %q, want more than 0, up to the %d that there are", a.Each, a.Name, a.Values)
	case !text && (a.Values != 0 || a.Bytes != 0) || a.Type != attribute.KeywordList && a.Each != 0:
		return fmt.Errorf("attribute %q is of type %s, which has no values, bytes or each to say; a keyword has values and bytes, a keyword_list each too", a.Name, a.Type)
	case !(a.Present > 0 && a.Present <= 1):
		return fmt.Errorf("attribute %q is present in %v of the rows, want more than 0, up to 1", a.Name, a.Present)
	}
	return nil
}

func (i Instance) validate() error {
	switch {
	case i.Name == "" || len(i.Name) > maxName || strings.ContainsFunc(i.Name, func(r rune) bool { return r < ' ' }):
		return fmt.Errorf("the name of an instance is %.64q, want 1 to %d bytes", i.Name, maxName)
	case i.VCPU < 1 || i.VCPU > 4096:
		return fmt.Errorf("instance %q has %d vcpu, want 1 to 4096", i.Name, i.VCPU)
	case i.Memory < 1<<28 || i.Memory > 1<<45:
		return fmt.Errorf("instance %q has %d bytes of memory, want %d to %d", i.Name, i.Memory, 1<<28, int64(1)<<45)
	case !(i.Price > 0 && i.Price <= maxMoney):
		return fmt.Errorf("instance %q costs %v an hour, want more than 0, up to %v", i.Name, i.Price, maxMoney)
	}
	return nil
}

// shards and userShards return how many shards the towers have.
func (s *Scenario) shards() int64     { return s.shardsOf(s.Apps, s.Shards) }
func (s *Scenario) userShards() int64 { return s.shardsOf(s.Users, s.UserShards) }

func (s *Scenario) shardsOf(rows int64, given int) int64 {
	if given > 0 {
		return int64(given)
	}
	return (rows + s.ShardRows - 1) / s.ShardRows
}

// appRows and userRows return how many rows a shard has.
func (s *Scenario) appRows() float64  { return math.Ceil(float64(s.Apps) / float64(s.shards())) }
func (s *Scenario) userRows() float64 { return math.Ceil(float64(s.Users) / float64(s.userShards())) }

// errTooMany says that no number of machines will do.
var errTooMany = errors.New("no number of nodes that a cluster may have will do")
