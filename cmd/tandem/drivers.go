package main

// The stores beside folders that --store takes; one more is in drivers_gcs.go.
import (
	_ "gocloud.dev/blob/azureblob" // azblob://
	_ "gocloud.dev/blob/s3blob"    // s3://
)
