package main

// The stores beside folders that --store takes; one more is in drivers_gcs.go.
import (
	_ "github.com/tandem-ann/tandem/shard/objects/azure" // azblob://
	_ "github.com/tandem-ann/tandem/shard/objects/s3"    // s3://
)
