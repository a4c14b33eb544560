package capacity

import (
	"bytes"
	_ "embed"
	"fmt"
	"sync"

	"github.com/tandem-ann/tandem/shard"
)

//go:embed measured.json
var measuredFile []byte

// Default returns what was measured of one machine, which the file measured.json is of. It must not be
// changed.
var Default = sync.OnceValue(func() *Measured {
	m, err := ReadMeasured(bytes.NewReader(measuredFile))
	if err != nil {
		panic(fmt.Sprintf("capacity: measured.json: %v", err)) // a test reads it
	}
	return m
})

func shareOf(s *Scenario) (asked, expected int) { return shard.Share(s.K, int(s.shards())) }
