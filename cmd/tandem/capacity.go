package main

import (
	"encoding"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/bench/capacity"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/wording"
)

// capacityCommand is `tandem capacity`.
type capacityCommand struct {
	Apps          []countFlag     `default:"100M" placeholder:"N" help:"Apps, such as 100M or 1B; several are compared (default 100M)."`
	Users         countFlag       `placeholder:"N" help:"Users (default as many as apps)."`
	Dim           int             `default:"64" placeholder:"N" help:"Dimension of the towers (default ${default})."`
	Element       string          `default:"float32" placeholder:"TYPE" help:"What components are stored as: float32, float16 if all are, or uint8 (default ${default})."`
	M             int             `default:"${m}" placeholder:"N" help:"Neighbours of a node (default ${default})."`
	Attribute     []attributeFlag `sep:"none" placeholder:"FIELDS" help:"Attribute of apps: type=TYPE and, as the type has it, values=N, bytes=N, each=N, present=SHARE. May be repeated."`
	UserAttribute []attributeFlag `sep:"none" placeholder:"FIELDS" help:"The same of users."`
	Segments      int             `placeholder:"N" help:"Segments of apps."`
	Shards        int             `placeholder:"N" help:"Shards of the app tower, instead of --shard-rows."`
	UserShards    int             `placeholder:"N" help:"Shards of the user tower, instead of --shard-rows."`
	ShardRows     countFlag       `default:"10M" placeholder:"N" help:"Rows of a shard of either tower (default 10M)."`
	QPS           float64         `name:"qps" default:"1000" placeholder:"X" help:"Queries a second, at the peak (default ${default})."`
	K             int             `default:"100" placeholder:"N" help:"How many candidates they ask for (default ${default})."`
	Recall        float64         `default:"0.99" placeholder:"X" help:"Recall that they aim at (default ${default})."`
	Replicas      int             `default:"2" placeholder:"N" help:"Nodes that hold each shard (default ${default})."`
	Zones         int             `default:"3" placeholder:"N" help:"Zones that nodes are in (default ${default})."`
	Nodes         int             `placeholder:"N" help:"How many nodes there are (default as many as it takes)."`
	Instance      []instanceFlag  `sep:"none" required:"" placeholder:"FIELDS" help:"Machine that can be had: name=NAME,vcpu=N,memory=SIZE,price=X, of an hour. May be repeated."`
	PricePut      float64         `placeholder:"X" help:"Price of 1,000 requests to the store that write."`
	PriceGet      float64         `placeholder:"X" help:"Price of 1,000 requests to the store that read."`
	PriceStored   float64         `placeholder:"X" help:"Price of a GB in the store for a month."`
	PriceTransfer float64         `placeholder:"X" help:"Price of a GB that is downloaded from the store."`
	Assume        []string        `sep:"none" placeholder:"NAME=VALUE" help:"Value of what is reckoned with; the report lists all of it. May be repeated."`
	Measured      string          `placeholder:"FILE" type:"existingfile" help:"What tandem bench capacity measure has written (default what was measured of one machine)."`
	Queries       int             `default:"40000" placeholder:"N" help:"Queries to simulate at most (default ${default})."`
	Seed          uint64          `default:"1" placeholder:"N" help:"Seed of the simulation (default ${default})."`
	JSON          bool            `help:"Print JSON."`
}

func (capacityCommand) Help() string {
	return `Reckons what a catalogue takes to be served: shards, bytes, nodes and routers of machines that can be had, whether an old and a new snapshot fit at a switch, what queries take of processors and how long they take at a router, builds, releases and the live log, and what it costs. It knows no prices but those that are given. What it reckons with is listed with its source: --assume changes it, --measured takes times of another machine, and what matters most is found by trying half and twice of each. Of several --apps it prints one table, without that.

Examples:

    tandem capacity --apps 100M --users 500M --attribute type=keyword,values=200,bytes=2 --instance name=a,vcpu=16,memory=128GiB,price=1
    tandem capacity --apps 10M,100M,1B --qps 5000 --instance name=a,vcpu=16,memory=128GiB,price=1 --assume utilisation=0.3`
}

// countFlag is a number of rows, such as 100M.
type countFlag int64

// UnmarshalText reads a number such as 1500, 10M or 1B.
func (c *countFlag) UnmarshalText(text []byte) error {
	s, unit := string(text), 1.0
	for i, name := range []string{"K", "M", "B"} {
		if number, ok := strings.CutSuffix(s, name); ok {
			s, unit = number, math.Pow(1000, float64(i+1))
			break
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if n *= unit; err != nil || !(n >= 1 && n < 1<<53) || n != math.Trunc(n) {
		return usagef("%.64q is no number of rows; accepted: a whole number above 0, or one with K, M or B", text)
	}
	*c = countFlag(n)
	return nil
}

// fields reads NAME=VALUE,NAME=VALUE into what the names stand for.
func fields(what string, text []byte, into map[string]encoding.TextUnmarshaler, names string) (given map[string]bool, err error) {
	given = map[string]bool{}
	for field := range strings.SplitSeq(string(text), ",") {
		name, value, ok := strings.Cut(field, "=")
		to := into[name]
		switch {
		case !ok || to == nil:
			return nil, usagef("%s has the field %.64q; accepted: %s", what, field, names)
		case given[name]:
			return nil, usagef("%s has the field %s twice", what, name)
		}
		given[name] = true
		if err := to.UnmarshalText([]byte(value)); err != nil {
			return nil, fmt.Errorf("field %s of %s: %w", name, what, err)
		}
	}
	return given, nil
}

// numberField is a number.
type numberField struct{ to *float64 }

func (f numberField) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return usagef("%.64q is no number", text)
	}
	*f.to = v
	return nil
}

// textField is a text.
type textField struct{ to *string }

func (f textField) UnmarshalText(text []byte) error {
	*f.to = string(text)
	return nil
}

// instanceFlag is a machine that can be had.
type instanceFlag capacity.Instance

// UnmarshalText reads name=a,vcpu=16,memory=128GiB,price=1.
func (i *instanceFlag) UnmarshalText(text []byte) error {
	var vcpu float64
	var memory byteFlag
	given, err := fields("an instance", text, map[string]encoding.TextUnmarshaler{
		"name": textField{&i.Name}, "vcpu": numberField{&vcpu}, "memory": &memory, "price": numberField{&i.Price},
	}, "name, vcpu, memory, price")
	if err != nil {
		return err
	}
	for _, name := range []string{"name", "vcpu", "memory", "price"} {
		if !given[name] {
			return usagef("an instance lacks the field %s; accepted: name=NAME,vcpu=N,memory=SIZE,price=X", name)
		}
	}
	if vcpu != math.Trunc(vcpu) || math.Abs(vcpu) > 1<<20 {
		return usagef("field vcpu of an instance is %v, want a whole number", vcpu)
	}
	i.VCPU, i.Memory = int(vcpu), int64(memory)
	return nil
}

// attributeFlag is an attribute.
type attributeFlag capacity.Attribute

// UnmarshalText reads name=country,type=keyword,values=200,bytes=2.
func (a *attributeFlag) UnmarshalText(text []byte) error {
	var values float64
	var kind string
	a.Present = 1
	if _, err := fields("an attribute", text, map[string]encoding.TextUnmarshaler{
		"name": textField{&a.Name}, "type": textField{&kind}, "values": numberField{&values},
		"bytes": numberField{&a.Bytes}, "each": numberField{&a.Each}, "present": numberField{&a.Present},
	}, "name, type, values, bytes, each, present"); err != nil {
		return err
	}
	if err := a.Type.UnmarshalText([]byte(kind)); err != nil {
		return usagef("an attribute has the type %.64q; accepted: %s", kind, typeList())
	}
	if a.Name == "" {
		a.Name = a.Type.String()
	}
	if values != math.Trunc(values) || math.Abs(values) > 1<<40 {
		return usagef("field values of attribute %.64q is %v, want a whole number", a.Name, values)
	}
	a.Values = int64(values)
	return nil
}

// typeList names the types of attributes.
func typeList() string {
	var list []string
	for t := attribute.Keyword; t <= attribute.Float32; t++ {
		list = append(list, t.String())
	}
	return strings.Join(list, ", ")
}

// scenario returns what is to be served of so many apps.
func (c *capacityCommand) scenario(apps int64) *capacity.Scenario {
	s := &capacity.Scenario{
		Apps: apps, Users: int64(c.Users), Dim: c.Dim, Element: capacity.Element(c.Element), Degree: c.M, Segments: c.Segments,
		Shards: c.Shards, UserShards: c.UserShards, ShardRows: int64(c.ShardRows), QPS: c.QPS, K: c.K, Recall: c.Recall, Replicas: c.Replicas, Zones: c.Zones, Nodes: c.Nodes,
		Prices:  capacity.Prices{Put: c.PricePut, Get: c.PriceGet, Stored: c.PriceStored, Transfer: c.PriceTransfer},
		Queries: c.Queries, Seed: c.Seed,
	}
	if s.Users == 0 {
		s.Users = apps
	}
	for _, i := range c.Instance {
		s.Instances = append(s.Instances, capacity.Instance(i))
	}
	for _, a := range c.Attribute {
		s.AppAttributes = append(s.AppAttributes, capacity.Attribute(a))
	}
	for _, a := range c.UserAttribute {
		s.UserAttributes = append(s.UserAttributes, capacity.Attribute(a))
	}
	return s
}

// maxCompared is how many numbers of apps are compared.
const maxCompared = 10

func (c *capacityCommand) Run(e *environment) error {
	o := capacity.Options{Assume: map[string]float64{}, Brief: len(c.Apps) > 1}
	for _, text := range c.Assume {
		name, value, ok := strings.Cut(text, "=")
		v, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			return usagef("--assume is %.200q, want NAME=VALUE, such as utilisation=0.3", text)
		}
		if _, ok := o.Assume[name]; ok {
			return usagef("--assume has %.64s twice", name)
		}
		o.Assume[name] = v
	}
	if len(c.Apps) > maxCompared {
		return usagef("--apps has %d numbers, want at most %d", len(c.Apps), maxCompared)
	}
	if c.Measured != "" {
		m, err := readMeasured(c.Measured)
		if err != nil {
			return usageError{fmt.Errorf("read %s: %w", c.Measured, err)}
		}
		o.Measured = m
	}
	var list []*capacity.Report
	for _, apps := range c.Apps {
		r, err := capacity.Plan(c.scenario(int64(apps)), o)
		if err != nil {
			return usageError{err}
		}
		list = append(list, r)
	}
	switch {
	case c.JSON && len(list) == 1:
		return list[0].WriteJSON(e.stdout)
	case c.JSON:
		return wording.WriteJSON(e.stdout, list)
	case len(list) == 1:
		return list[0].WriteTable(e.stdout)
	}
	return capacity.WriteSummary(e.stdout, list)
}

func readMeasured(path string) (_ *capacity.Measured, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer closing(&err, f)
	return capacity.ReadMeasured(f)
}
