package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/release"
)

// cli is the command line.
type cli struct {
	Generate generateCommand `cmd:"" help:"Generate synthetic towers as Parquet files."`
	Build    buildCommand    `cmd:"" help:"Build both towers into a snapshot in a store."`
	Serve    serveCommand    `cmd:"" help:"Serve a snapshot over Connect, gRPC and HTTP with JSON."`
	Query    queryCommand    `cmd:"" help:"Ask a server for candidates."`
	Status   statusCommand   `cmd:"" help:"Show whether servers are good, and if not, why and what to do."`
	Snapshot snapshotCommand `cmd:"" help:"List, show, copy, remove and collect the snapshots of a store."`
	Gate     gateCommand     `cmd:"" help:"Run the gates on a snapshot of a store."`
	Forget   forgetCommand   `cmd:"" help:"Forget a user."`
	Release  releaseCommand  `cmd:"" help:"Decide which snapshots serve, and with which share of traffic."`
	Token    tokenCommand    `cmd:"" help:"Make tokens for callers of servers."`
	Live     liveCommand     `cmd:"" help:"Change what serves without a build: take apps down, add some, prove it."`
	Feedback feedbackCommand `cmd:"" help:"Tell servers what users did with apps that were served."`
	Inspect  inspectCommand  `cmd:"" help:"Show what is in a snapshot or in shard files."`
	Verify   verifyCommand   `cmd:"" help:"Prove that a snapshot is whole, or that shard files are."`
	Capacity capacityCommand `cmd:"" help:"Reckon what a catalogue takes to be served, and what it costs."`
	Bench    benchCommand    `cmd:"" help:"Measure a snapshot, or our index beside other engines."`
	Load     loadCommand     `cmd:"" help:"Measure a running server under load."`
	Replay   replayCommand   `cmd:"" help:"Ask a snapshot the queries that a server has recorded."`
	Demo     demoCommand     `cmd:"" help:"See all of it in half a minute, in a temporary folder."`

	Completion completionCommand `cmd:"" help:"Have the shell complete commands and flags."`
	Docs       docsCommand       `cmd:"" help:"Read the documentation, which is in the binary."`
	Version    versionCommand    `cmd:"" help:"Say which version this is, and which formats it reads and writes."`

	VersionFlag kong.VersionFlag `name:"version" help:"Print the version and exit."`
}

// completionCommand prints how a shell learns to complete.
type completionCommand struct {
	kongcompletion.Completion
}

func (completionCommand) Help() string {
	return `Prints the command that makes a shell complete commands, flags and their values, or, with --code, what that command runs. For good it goes into the file that the shell reads when it starts. Without a shell it is the one of the user.

Example:

    tandem completion bash`
}

// The exit codes.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitUnfit       = 3
	exitUnreachable = 4
	exitRefused     = 5
)

// unfitError says that a snapshot is not fit to be released.
type unfitError struct{ error }

func (e unfitError) Unwrap() error { return e.error }

// usageError is an error in how the command was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// environment is what a command works with beside its flags.
type environment struct {
	ctx            context.Context
	stdout, stderr io.Writer
}

// exit carries the code of --help and --version out of the parser.
type exit int

// run runs the command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	var c cli
	variables := &variables{lookup: environ}
	k, err := kong.New(&c,
		kong.Resolvers(variables),
		kong.Name("tandem"),
		kong.Description("Candidate retrieval for two-tower recommenders."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(helpText),
		vars(),
	)
	if err != nil {
		panic(err) // the declarations above are wrong
	}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exit)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	kongcompletion.Register(k)
	if err := errors.Join(checkArguments(args), variables.check()); err != nil {
		return report(ctx, stderr, "tandem", err)
	}
	parsed, err := k.Parse(whole(args))
	if err != nil {
		name := "tandem"
		if pe := (*kong.ParseError)(nil); errors.As(err, &pe) {
			name = commandName(pe.Context)
		}
		fmt.Fprintf(stderr, "%s: %s (see %s --help)\n", name, escapeLines(err.Error()), name)
		variables.tell(stderr)
		return exitUsage
	}
	code = report(ctx, stderr, commandName(parsed), guarded(runOf(parsed), &environment{ctx, stdout, stderr}))
	if code != 0 {
		variables.tell(stderr)
	}
	return code
}

// wholeBuild is the name of the command that `tandem build` without a step means.
const wholeBuild = "all"

// whole returns the arguments with the name of that command, so that its help is shown too.
func whole(args []string) []string {
	if len(args) == 0 || args[0] != "build" || len(args) > 1 && slices.Contains([]string{wholeBuild, "plan", "partition", "shard", "commit"}, args[1]) {
		return args
	}
	return slices.Concat(args[:1], []string{wholeBuild}, args[1:])
}

// checkArguments returns an error unless all arguments are UTF-8. The parser would change what
// is not, so that another id, or another file, is meant.
func checkArguments(args []string) error {
	for i, arg := range args {
		if !utf8.ValidString(arg) {
			return usagef("argument %d is %.200q, which is not UTF-8; accepted: UTF-8, for names of files too: link one that has another name", i+1, arg)
		}
	}
	return nil
}

// runOf returns what runs the command that was parsed. A command of ours does not hold what the
// parser knows of all commands, which is a MiB, as long as it runs.
func runOf(parsed *kong.Context) func(*environment) error {
	if node := parsed.Selected(); node != nil {
		if command, ok := node.Target.Addr().Interface().(interface{ Run(*environment) error }); ok {
			return command.Run
		}
	}
	return func(e *environment) error { return parsed.Run(e) }
}

// guarded runs a command, to which a mapped file that cannot be read is an error.
func guarded(run func(*environment) error, e *environment) (err error) {
	defer sections.Guard(&err)()
	return run(e)
}

// report prints an error and returns the exit code for it.
func report(ctx context.Context, stderr io.Writer, name string, err error) int {
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintf(stderr, "%s: interrupted\n", name)
		return exitFailure
	}
	fmt.Fprintf(stderr, "%s: %s\n", name, escapeLines(err.Error()+goOn(err)))
	switch {
	case errors.As(err, new(usageError)), errors.As(err, new(gates.ThresholdsError)), errors.As(err, new(tower.InteractionsPathError)):
		return exitUsage
	case errors.As(err, new(unfitError)):
		return exitUnfit
	case errors.As(err, new(refusedError)):
		return exitRefused
	case errors.As(err, new(unreachableError)):
		return exitUnreachable
	}
	return exitFailure
}

// ownState is how to go on with a copy of a store that is not to take its place.
const ownState = "; a copy that is for something else goes with a --state of its own"

// liveAtLeast is the flag by which a person says what the live log has reached.
const liveAtLeast = "--live-at-least"

// goOn says how to go on after an error of the log of releases or the live log, or nothing.
func goOn(err error) string {
	if c, ok := errors.AsType[classed](err); ok { // it has lines of its own
		if text, ok := strings.CutPrefix(goOn(c.class), "; "); ok {
			return "\n  next      " + text
		}
		return ""
	}
	if past, ok := errors.AsType[*release.PastError](err); ok {
		return fmt.Sprintf("; tandem release rollback --to %d goes on without it", past.Readable)
	}
	if errors.Is(err, release.ErrLost) {
		return "; tandem release start --restored begins it anew"
	}
	if errors.Is(err, release.ErrTimeTravel) {
		text := "; the next change with --restored, such as tandem release rollback, makes it the one that counts for every server, which lasts; " +
			"tandem serve --accept-store-at has one server alone take it until then"
		if travel, ok := errors.AsType[*release.TimeTravelError](err); ok && travel.Moved {
			text += ownState
		}
		return text
	}
	if errors.As(err, new(*live.GapError)) {
		return "; tandem live accept says how many are lost, and goes on without"
	}
	if travel, ok := errors.AsType[*live.TimeTravelError](err); ok {
		text := fmt.Sprintf("; tandem live accept makes it the one that counts for every server, which lasts; "+
			"tandem serve --accept-store-at %s has one server alone take it until then", travel.Found.Shard())
		if travel.Moved {
			text += ownState
		}
		if log := travel.Found.Log; travel.From == liveAtLeast && travel.Known.Log != log {
			is := "positions of the store's log have no id, such as " + travel.Found.Shard().String()
			if log != "" {
				is = fmt.Sprintf("the id of the store's log is %.80s", log)
			}
			return fmt.Sprintf("; is the id of %s right? %s; if it is right, %s", liveAtLeast, is, text[2:])
		}
		return text
	}
	return ""
}

// commandName returns the program and the command that was found, if any. That a build is the
// whole one goes without saying.
func commandName(c *kong.Context) string {
	name := "tandem"
	for _, p := range c.Path {
		if p.Command != nil && p.Command.Name != wholeBuild {
			name += " " + p.Command.Name
		}
	}
	return name
}

// helpText is kong's text of a flag, with the default of bool flags left out, and with the
// variable that stands for it.
func helpText(v *kong.Value) string {
	if v.IsBool() || v.Tag == nil {
		return v.Help
	}
	if name := variableOf(v); name != "" {
		return strings.TrimSuffix(v.Help, ".") + " ($" + name + ")."
	}
	return kong.DefaultHelpValueFormatter(v)
}

// vars are the defaults that flags take from elsewhere.
func vars() kong.Vars {
	p := index.DefaultParams(index.Dot)
	return kong.Vars{
		"version":         version(),
		"m":               strconv.Itoa(p.M),
		"ef_construction": strconv.Itoa(p.EfConstruction),
		"alpha":           strconv.FormatFloat(float64(p.Alpha), 'g', -1, 32),
		"threads":         strconv.Itoa(runtime.GOMAXPROCS(0)),
	}
}

// toolRelease names the release of the tool, in manifests too. It is a constant, so that
// every binary of one commit gives the same digests: what the linker records depends on
// whether it was built in a clone, with files that are not committed, or from an archive.
const toolRelease = "tandem 0.5"

// version describes the binary in one line.
func version() string {
	words := []string{toolRelease, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		words = append(words, info.Main.Version)
	}
	return strings.Join(words, " ")
}
