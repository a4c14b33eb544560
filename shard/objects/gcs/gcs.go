// Package gcs links the client of Google Cloud Storage: with it imported, [objects.Open] takes gs:// URLs.
package gcs

import (
	_ "gocloud.dev/blob/gcsblob" // gs://

	"github.com/tandem-ann/tandem/shard/objects"
)

func init() { objects.Register("gs", objects.Driver{}) }
