package upkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
)

// mark says what was settled of one model version, or of all that was set and removed. It is
// there before the event that settles it.
type mark struct {
	Model        string         `json:"model,omitempty"`
	ModelVersion string         `json:"model_version,omitempty"`
	Through      shard.Position `json:"through"`
}

// markKey names the mark of a model version; that of none is the mark of what was set and
// removed.
func markKey(model, version string) string {
	return fmt.Sprintf("live/settled/%016x.json", xxhash.Sum64String(model+"\x00"+version))
}

// readMark returns a mark; zero if there is none.
func readMark(ctx context.Context, bucket *objects.Bucket, model, version string) (m mark, err error) {
	key := markKey(model, version)
	data, err := bucket.Read(ctx, key)
	if errors.Is(err, objects.ErrNotFound) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err == nil {
		err = m.Through.Check()
	}
	if err != nil {
		return m, fmt.Errorf("read what was settled of the live log, %s: %w", key, err)
	}
	return m, nil
}

// writeMark says that something will be settled through a position, unless more was.
func writeMark(ctx context.Context, bucket *objects.Bucket, m mark) error {
	before, err := readMark(ctx, bucket, m.Model, m.ModelVersion)
	if err != nil || before.Through.Compare(m.Through) >= 0 {
		return err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return bucket.Write(ctx, markKey(m.Model, m.ModelVersion), append(data, '\n'))
}

// SettledError says that the inputs of a snapshot are older than what is kept of the live
// log: what came between would be in neither.
type SettledError struct {
	Inputs  shard.Position // that they reflect
	Through shard.Position // that was settled
	// Model and ModelVersion are those of which upserts were settled; empty where attributes
	// that were set and removals were.
	Model, ModelVersion string
}

// Error implements [error].
func (e *SettledError) Error() string {
	what := "attributes that were set and removals"
	if e.Model != "" {
		what = fmt.Sprintf("upserts for model %.80s at %.80s", e.Model, e.ModelVersion)
	}
	return fmt.Sprintf("the inputs reflect the live log up to %s, and %s are no longer kept up to %s, which a collection has settled: what came between would be lost; accepted: inputs that reflect %s or later", e.Inputs, what, e.Through, e.Through)
}

// CheckInputs returns a [*SettledError] if the live log does not have all that inputs of a
// model version lack which reflect a position of it.
func CheckInputs(ctx context.Context, bucket *objects.Bucket, inputs shard.Position, model, version string) error {
	for _, of := range []mark{{}, {Model: model, ModelVersion: version}} {
		m, err := readMark(ctx, bucket, of.Model, of.ModelVersion)
		if err != nil {
			return err
		}
		if inputs.Compare(m.Through) < 0 {
			return &SettledError{Inputs: inputs, Through: m.Through, Model: of.Model, ModelVersion: of.ModelVersion}
		}
	}
	return nil
}
