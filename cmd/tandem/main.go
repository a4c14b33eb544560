// Command tandem builds, serves, asks, inspects and measures snapshots of
// two-tower recommenders. `tandem --help` lists its commands; each of them has an
// example in its own help.
//
// It is the one place that reads flags and turns errors into exit codes: 0 for
// success, 1 for a failure, 2 for wrong use, 3 for a snapshot that is not fit to be
// released, 4 for a server that does not answer, 5 for inputs of a build, or of a step of one,
// that no repetition mends.
//
// The package has more than 3,000 lines because each command has a file or two: its flags
// and their help, what it wires together, and what it prints.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(mainExit()) }

// mainExit runs the command line and returns its exit code. The first SIGINT or
// SIGTERM asks it to stop; the second kills it.
func mainExit() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], onTerminal(os.Stdout), os.Stderr)
}
