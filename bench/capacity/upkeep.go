package capacity

import "math"

// Build is what a build of one snapshot takes.
type Build struct {
	PartitionCPU float64 `json:"partition_cpu_hours"`
	ShardsCPU    float64 `json:"shards_cpu_hours"`
	// CommitHours is how long the shards take to be uploaded from one machine.
	UploadHours float64 `json:"upload_hours"`
	// MachineHours are of the instance that the plan takes, and Cost what they cost.
	MachineHours float64 `json:"machine_hours"`
	Cost         float64 `json:"cost"`
}

// build reckons with builds that were measured: CPU by rows, to the power that was found.
func (c *calculation) build(i Instance) Build {
	from := c.m.Builds[len(c.m.Builds)-1]
	dims := (1 + c.n.of(dimCost)*float64(c.s.Dim)) / (1 + c.n.of(dimCost)*float64(c.m.Dim))
	each := func(rows float64) float64 { // seconds of a shard
		return from.CPU * math.Pow(rows/float64(from.Apps+from.Users), c.n.of(buildExponent)) * dims / c.n.of(coreSpeed)
	}
	b := Build{
		PartitionCPU: float64(c.s.Apps+c.s.Users) * c.n.of(partitionTime) / 1e6 / c.n.of(coreSpeed) / 3600,
		ShardsCPU:    (float64(c.s.shards())*each(c.s.appRows()) + float64(c.s.userShards())*each(c.s.userRows())) / 3600,
		UploadHours:  c.snapshot() * c.n.of(changedShare) / (c.n.of(uploadRate) * 1e6) / 3600,
	}
	b.MachineHours = (b.PartitionCPU+b.ShardsCPU)/(float64(i.VCPU)*c.n.of(buildBusy)) + b.UploadHours
	b.Cost = b.MachineHours * i.Price
	return b
}

// Store is what the store is asked for: in requests, in bytes, and in money where prices were given.
type Store struct {
	Requests float64 `json:"requests"`
	Writes   float64 `json:"writes"`
	Reads    float64 `json:"reads"`
	Uploaded float64 `json:"uploaded"`
	Loaded   float64 `json:"downloaded"`
	Stored   float64 `json:"stored,omitempty"`
	Cost     float64 `json:"cost"`
	// Minutes is how long a node takes to download what is its own.
	Minutes float64 `json:"minutes,omitempty"`
}

func (s *Store) price(p Prices) {
	s.Requests = s.Writes + s.Reads
	s.Cost = s.Writes/1e3*p.Put + s.Reads/1e3*p.Get + s.Loaded/1e9*p.Transfer
}

// partBytes is how large the parts of an upload are; see shard/objects.
const partBytes = 8 << 20

// release returns what a release of a new snapshot asks of the store.
func (c *calculation) release(f *Fleet) Store {
	changed := c.n.of(changedShare)
	var s Store
	for _, tower := range []struct {
		shards int64
		bytes  Bytes
	}{{c.s.shards(), c.apps}, {c.s.userShards(), c.users}} {
		s.Writes += float64(tower.shards) * changed * (math.Ceil(tower.bytes.All()/partBytes) + 2)
		s.Reads += float64(tower.shards) * changed * float64(c.s.Replicas)
	}
	followers := float64(f.Nodes + f.Routers)
	s.Writes += 3            // manifest, gates, entry
	s.Reads += 3 * followers // entry, manifest, gates
	s.Uploaded = c.snapshot() * changed
	s.Loaded = s.Uploaded * float64(c.s.Replicas)
	s.Minutes = f.Held * changed / (c.n.of(downloadRate) * 1e6) / 60
	s.price(c.s.Prices)
	return s
}

const daySeconds = 86_400

// live returns what following and appending to the logs takes a day.
func (c *calculation) live(f *Fleet) Store {
	followers := float64(f.Nodes + f.Routers)
	looks := 1/(c.n.of(livePoll)*1.05) + 1/(c.n.of(releasePoll)*1.05) // waits are up to a tenth longer
	appends := 0.0
	if e := c.n.of(events); e > 0 { // what comes while an entry is written is in the next one
		appends = 1 / (1/e + c.n.of(appendPause))
	}
	bytes := c.n.of(events) * c.n.of(eventBytes)
	s := Store{
		Writes:   daySeconds*appends + c.n.of(checkpoints)*2,
		Reads:    daySeconds * followers * (looks*c.n.of(lookRequests) + appends),
		Uploaded: daySeconds * bytes * (1 + min(c.n.of(checkpoints), 1)),
		Loaded:   daySeconds * bytes * followers,
	}
	s.price(c.s.Prices)
	return s
}

// stored returns what the snapshots take that are kept.
func (c *calculation) stored() float64 {
	return c.snapshot() * (1 + (c.n.of(kept)-1)*c.n.of(changedShare))
}
