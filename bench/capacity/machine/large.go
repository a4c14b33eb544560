package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/bench/capacity"
	"github.com/tandem-ann/tandem/bench/capacity/tail"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/server/resident"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/wording"
)

// LargeOptions say what [Large] builds in steps, serves, and asks.
type LargeOptions struct {
	Options // but Make, Rows and Rates
	Towers  Towers
	Threads int // of each step
	// Rate is how often the router is asked a second, and Recalled how many answers are compared with
	// the exact ones.
	Rate     float64
	Recalled int
	// Measured is what capacity reckons with. Nil: its default.
	Measured *capacity.Measured
	// Unfit is the exit code of a step whose snapshot does not pass its gates: it is there all the same.
	Unfit int
}

// Bounds of [LargeOptions].
const (
	mostLargeShards = 64
	mostRecalled    = 10_000
)

// Validate returns an error that names the option out of bounds.
func (o *LargeOptions) Validate() error {
	t := o.Towers
	switch {
	case t.Apps < leastRows || t.Apps > 1_000_000_000:
		return fmt.Errorf("apps is %d, want %d to 1000000000", t.Apps, leastRows)
	case t.Users < users || t.Users > 1_000_000_000:
		return fmt.Errorf("users is %d, want %d to 1000000000", t.Users, users)
	case t.Shards < 2 || t.Shards > mostLargeShards:
		return fmt.Errorf("shards is %d, want 2 to %d", t.Shards, mostLargeShards)
	case o.Threads < 1 || o.Threads > 1024:
		return fmt.Errorf("threads is %d, want 1 to 1024", o.Threads)
	case o.Recalled < 1 || o.Recalled > mostRecalled:
		return fmt.Errorf("the number of answers that are compared is %d, want 1 to %d", o.Recalled, mostRecalled)
	}
	bounds := o.Options
	bounds.Rows, bounds.Rates = []int{leastRows, leastRows + 1}, []float64{o.Rate}
	return bounds.Validate()
}

// LargeReport is what was measured, beside what the plan of the build and capacity said before.
type LargeReport struct {
	Machine    string `json:"machine"`
	Processors int    `json:"processors"`
	Apps       int    `json:"apps"`
	Users      int    `json:"users"`
	Dim        int    `json:"dim"`
	Shards     int    `json:"shards"`
	Threads    int    `json:"threads"`
	Digest     string `json:"digest"`
	Steps      []Step `json:"steps"`
	// Figures are of what capacity said; a step's are beside the plan of the build.
	Figures []Figure `json:"figures"`
	// Recall is the mean recall@k of Recalled answers at the target, and Rate how many queries a second
	// the times are of. Others is how many processors other programs took meanwhile.
	Recall   float64 `json:"recall"`
	Target   float64 `json:"target"`
	K        int     `json:"k"`
	Recalled int     `json:"recalled"`
	Rate     float64 `json:"rate"`
	// Disk is the most bytes that towers, store and caches had between two steps.
	Disk    int64   `json:"disk_bytes"`
	Refused int     `json:"refused"`
	Others  float64 `json:"others"`
}

// Step is what one kind of step took: CPU and Seconds of all runs, Memory of the largest.
type Step struct {
	Name    string  `json:"name"`
	Runs    int     `json:"runs"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	// Memory is the most that a run had in memory, in bytes, with the program and the shards that it maps,
	// and Planned what the plan said: 0 where it says nothing.
	Memory     float64 `json:"memory"`
	Planned    float64 `json:"planned_memory"`
	PlannedCPU float64 `json:"planned_cpu"`
}

// WriteTable writes the report for people.
func (r *LargeReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d processors: %s apps and %s users of %d components, %d shards, %s a step\nsnapshot %s\n\n", r.Machine, r.Processors,
		wording.Count(r.Apps), wording.Count(r.Users), r.Dim, r.Shards, wording.Plural(r.Threads, "thread"), r.Digest)
	t := wording.NewTable(w)
	fmt.Fprintln(t, "step\truns\ttime s\tCPU s\tthe plan said\tmemory MiB\tthe plan said")
	orNothing := func(v float64) string {
		if v == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f", v)
	}
	for _, s := range r.Steps {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%s\t%.0f\t%s\n", s.Name, s.Runs, s.Seconds, s.CPU, orNothing(s.PlannedCPU), s.Memory/(1<<20), orNothing(s.Planned/(1<<20)))
	}
	fmt.Fprintln(t, "\nfigure\tcapacity said\tmeasured\tby")
	for _, f := range r.Figures {
		fmt.Fprintf(t, "%s\t%.4g %s\t%.4g\t%+.0f%%\n", f.Name, f.Simulated, f.Unit, f.Measured, 100*f.Error())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nrecall@%d is %.4f of %s at a target of %v; times at %.3g queries a second, %d refused, %.2g processors taken by others\ntowers and store took %s of disk\n",
		r.K, r.Recall, wording.Plural(r.Recalled, "answer"), r.Target, r.Rate, r.Refused, r.Others, wording.Bytes(r.Disk))
	return err
}

// Large builds generated towers in steps, each a process of its own, serves the snapshot by a node for each
// shard and a router, asks it, and tells what it took beside what was said of it before. The processes
// share the processors of this machine. For Linux.
func Large(ctx context.Context, o LargeOptions) (_ *LargeReport, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Towers.Dim = o.Dim
	r := &LargeReport{
		Machine: model(), Processors: runtime.NumCPU(), Apps: o.Towers.Apps, Users: o.Towers.Users, Dim: o.Dim, Shards: o.Towers.Shards, Threads: o.Threads,
		Target: o.Target, K: o.K, Recalled: o.Recalled, Rate: o.Rate,
	}
	said, err := o.said()
	if err != nil {
		return nil, err
	}
	o.Make = func(ctx context.Context, store string, _ Towers) (string, error) {
		b := &stepped{o: &o, store: store}
		err := b.run(ctx)
		r.Steps, r.Digest, r.Disk = b.steps, b.digest, b.disk
		return b.digest, err
	}
	s, err := o.open(ctx, o.Towers)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return nil, err
	}
	o.progress("serve it")
	if err := s.serve(ctx, o.Towers.Shards); err != nil {
		return nil, err
	}
	return r, o.ask(ctx, s, r, said)
}

// said returns what capacity says.
func (o *LargeOptions) said() (*capacity.Shared, error) {
	t := o.Towers
	apps, users, err := attributesOf(t)
	if err != nil {
		return nil, err
	}
	return capacity.PlanShared(&capacity.Scenario{
		Apps: int64(t.Apps), Users: int64(t.Users), Dim: t.Dim, Element: capacity.Float32, Degree: 16, AppAttributes: apps, UserAttributes: users,
		Shards: t.Shards, UserShards: t.Shards, ShardRows: 1, QPS: o.Rate, K: o.K, Recall: o.Target, Replicas: 1, Zones: 1,
		Instances: []capacity.Instance{{Name: "this", VCPU: runtime.NumCPU(), Memory: 1 << 40, Price: 1}}, Queries: simulated, Seed: o.Seed,
	}, capacity.Options{Measured: o.Measured}, runtime.NumCPU())
}

// sampled is how many rows of a tower say what its attributes are like.
const sampled = 20_000

// attributesOf describes the attributes of generated towers.
func attributesOf(t Towers) (apps, users []capacity.Attribute, err error) {
	g, err := synthetic.New(synthetic.Options{Apps: int64(t.Apps), Users: int64(t.Users), Dim: t.Dim, Seed: t.Seed})
	if err != nil {
		return nil, nil, err
	}
	describe := func(s attribute.Schema, rows int, generate func(int64, *tower.Row)) (list []capacity.Attribute) {
		values := make([]map[string]bool, s.Len())
		present, each := make([]int, s.Len()), make([]int, s.Len())
		n := min(rows, sampled)
		for i := range n {
			var row tower.Row
			generate(int64(i)*int64(rows)/int64(n), &row)
			for a := range s.Len() {
				v := row.Attributes[a]
				if v.Absent() {
					continue
				}
				present[a]++
				words := v.Keywords()
				if v.Type() == attribute.Keyword {
					words = []string{v.Keyword()}
				}
				for _, word := range words {
					if values[a] == nil {
						values[a] = map[string]bool{}
					}
					values[a][word] = true
				}
				each[a] += len(words)
			}
		}
		for a := range s.Len() {
			f := s.Field(a)
			one := capacity.Attribute{Name: f.Name, Type: f.Type, Present: float64(present[a]) / float64(n)}
			if f.Type == attribute.Keyword || f.Type == attribute.KeywordList {
				bytes := 0
				for word := range values[a] {
					bytes += len(word)
				}
				one.Values, one.Bytes = int64(len(values[a])), float64(bytes)/float64(len(values[a]))
				if f.Type == attribute.KeywordList {
					one.Each = float64(each[a]) / float64(present[a])
				}
			}
			list = append(list, one)
		}
		return list
	}
	return describe(synthetic.AppSchema(), t.Apps, g.App), describe(synthetic.UserSchema(), t.Users, g.User), nil
}

// ask asks the router, and fills in figures.
func (o *LargeOptions) ask(ctx context.Context, s *site, r *LargeReport, said *capacity.Shared) (err error) {
	o.progress("compare %d answers with exact ones", o.Recalled)
	router := s.servers.Routers()[0]
	if r.Recall, err = recallOf(ctx, router.Address, s.users, o.K, o.Target, o.Recalled); err != nil {
		return err
	}
	o.progress("ask %.3g times a second", o.Rate)
	var turns []turn
	for round := range o.Rounds {
		t, err := queries(ctx, s.servers, s.users, o.K, o.Rate, o.Time, o.Seed+uint64(round), nil)
		if err != nil {
			return err
		}
		turns = append(turns, t)
		r.Refused += t.refused
	}
	memory := 0.0
	for _, p := range slices.Concat(s.servers.Nodes(), s.servers.Routers()) {
		own, files, err := memoryOf(p.PID)
		if err != nil {
			return err
		}
		memory += own + files
	}
	each := func(of func(t turn) float64) (list []float64) {
		for _, t := range turns {
			list = append(list, of(t))
		}
		return list
	}
	r.Others = middle(each(func(t turn) float64 { return t.others }))
	bytes := 0.0
	for i := range o.Towers.Shards {
		bytes += float64(s.snapshot.Manifest().Apps.Shards[i].Size)
	}
	quantile := func(q float64) []float64 {
		return each(func(t turn) float64 { return 1e3 * tail.NewTimes(t.took, len(t.took)).At(q) })
	}
	cpu := func(routers bool) []float64 {
		return each(func(t turn) (sum float64) {
			for pid, v := range t.cpu {
				if (pid == router.PID) == routers {
					sum += v
				}
			}
			return 1e3 * sum
		})
	}
	step := func(name string) (sum float64) {
		for _, s := range r.Steps {
			if s.Name == name {
				sum += s.CPU
			}
		}
		return sum
	}
	r.Figures = []Figure{
		figure("shards of apps", "MiB", 1, float64(o.Towers.Shards)*said.AppShard.All()/(1<<20), []float64{bytes / (1 << 20)}),
		figure("memory of all processes", "MiB", 1, said.Memory/(1<<20), []float64{memory / (1 << 20)}),
		figure("CPU of partition", "s", 1, said.PartitionCPU, []float64{step("partition")}),
		figure("CPU of shards and commit", "s", 1, said.ShardsCPU, []float64{step("shard") + step("commit")}),
		figure("CPU of nodes, a query", "ms", 1, said.NodeCPU/1e3, cpu(false)),
		figure("CPU of the router, a query", "ms", 1, said.RouterCPU/1e3, cpu(true)),
		figure("p50", "ms", 1, said.P50, quantile(0.5)),
		figure("p90", "ms", 1, said.P90, quantile(0.9)),
		figure("p99", "ms", 1, said.P99, quantile(0.99)),
	}
	return nil
}

// recallOf returns the mean recall@k of answers of a router.
func recallOf(ctx context.Context, address string, users []string, k int, target float64, n int) (float64, error) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := tandemv1connect.NewRetrievalServiceClient(&http.Client{Transport: transport, Timeout: 5 * time.Minute}, "http://"+address)
	ask := func(user string, target float64) (map[string]bool, error) {
		answer, err := client.Retrieve(ctx, connect.NewRequest(&tandemv1.RetrieveRequest{UserId: user, K: uint32(k), RecallTarget: &target}))
		if err != nil {
			return nil, fmt.Errorf("ask for user %s: %w", user, err)
		}
		found := map[string]bool{}
		for _, c := range answer.Msg.Candidates {
			found[c.Id] = true
		}
		return found, nil
	}
	sum := 0.0
	for i := range n {
		user := users[i%len(users)]
		want, err := ask(user, 1)
		if err != nil {
			return 0, err
		}
		got, err := ask(user, target)
		if err != nil {
			return 0, err
		}
		both := 0
		for id := range got {
			if want[id] {
				both++
			}
		}
		sum += float64(both) / float64(max(len(want), 1))
	}
	return sum / float64(n), nil
}

// stepped is a build in steps, each a process.
type stepped struct {
	o      *LargeOptions
	store  string
	steps  []Step
	digest string
	disk   int64 // the most that was in use after a step, in bytes
}

// planned is what is read of the report of tandem build plan.
type planned struct {
	Build string `json:"build"`
	Tasks []struct {
		Task int `json:"task"`
	} `json:"tasks"`
	Steps []struct {
		Step   string  `json:"step"`
		Memory int64   `json:"memory_bytes"`
		CPU    float64 `json:"cpu_seconds"`
	} `json:"steps"`
}

func (b *stepped) run(ctx context.Context) error {
	t, towers := b.o.Towers, b.store+".towers"
	threads := strconv.Itoa(b.o.Threads)
	if _, err := b.step(ctx, "generate", "generate", "--out", towers, "--apps", strconv.Itoa(t.Apps), "--users", strconv.Itoa(t.Users),
		"--dim", strconv.Itoa(t.Dim), "--interactions-per-user", "0", "--seed", strconv.FormatUint(t.Seed, 10)); err != nil {
		return err
	}
	text, err := b.step(ctx, "plan", "build", "plan", "--apps", filepath.Join(towers, synthetic.AppsFile), "--users", filepath.Join(towers, synthetic.UsersFile), "--store", b.store,
		"--model", "bench", "--model-version", "1", "--metric", "dot", "--shards", strconv.Itoa(t.Shards), "--threads", threads, "--json")
	if err != nil {
		return err
	}
	var p planned
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	build := []string{"--store", b.store, "--build", p.Build}
	for _, task := range p.Tasks {
		if _, err := b.step(ctx, "partition", append([]string{"build", "partition", "--task", strconv.Itoa(task.Task)}, build...)...); err != nil {
			return err
		}
	}
	for i := range 2 * t.Shards {
		if _, err := b.step(ctx, "shard", append([]string{"build", "shard", "--index", strconv.Itoa(i), "--threads", threads}, build...)...); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(towers); err != nil {
		return err
	}
	said, err := b.step(ctx, "commit", append([]string{"build", "commit", "--threads", threads}, build...)...)
	if err != nil {
		return err
	}
	words := strings.Fields(string(said))
	if len(words) == 0 {
		return errors.New("tandem build commit has told no digest")
	}
	b.digest = words[len(words)-1]
	for i := range b.steps {
		for _, s := range p.Steps {
			if s.Step == b.steps[i].Name {
				b.steps[i].Planned, b.steps[i].PlannedCPU = float64(s.Memory), s.CPU
			}
		}
	}
	_, err = b.step(ctx, "release", "release", "start", "--store", b.store, "--override", "a measurement", b.digest)
	return err
}

// step runs the program, and adds what it took to the step of a name.
func (b *stepped) step(ctx context.Context, name string, args ...string) ([]byte, error) {
	b.o.progress("%s", strings.Join(args[:min(len(args), 4)], " "))
	var said, log bytes.Buffer
	c := exec.CommandContext(ctx, b.o.Program, args...)
	c.Stdout, c.Stderr = &said, &log
	start := time.Now()
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	most, err := watchMemory(c.Process.Pid, ended)
	if state := c.ProcessState; err != nil && !(state != nil && state.ExitCode() == b.o.Unfit) {
		text := strings.TrimSpace(log.String())
		return nil, fmt.Errorf("run tandem %s: %w: %s", strings.Join(args[:min(len(args), 2)], " "), err, text[max(0, len(text)-2000):])
	}
	i := slices.IndexFunc(b.steps, func(s Step) bool { return s.Name == name })
	if i < 0 {
		i = len(b.steps)
		b.steps = append(b.steps, Step{Name: name})
	}
	s := &b.steps[i]
	s.Runs++
	s.Seconds += time.Since(start).Seconds()
	s.CPU += (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	s.Memory = max(s.Memory, most)
	used, err := diskOf(b.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("see what disk %s has taken: %w", name, err)
	}
	b.disk = max(b.disk, used)
	return said.Bytes(), nil
}

// diskOf returns the bytes of the files below a folder.
func diskOf(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// watchMemory returns the most memory that a process was seen with until it has ended, and how it ended.
func watchMemory(pid int, ended <-chan error) (most float64, err error) {
	look := func() {
		if m, err := resident.Of(pid); err == nil { // else it ends just now
			most = max(most, float64(m.Anonymous+m.File))
		}
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for look(); ; {
		select {
		case err := <-ended:
			return most, err
		case <-ticker.C:
			look()
		}
	}
}
