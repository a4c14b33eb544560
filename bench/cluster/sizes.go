package cluster

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sizes are how many of something each process has, by its name.
type sizes map[string][2]int // open files, of which most are connections, and goroutines

// spare is by how much they may grow: connections and goroutines come and go.
const spare = 8

// sizes returns those of routers and nodes.
func (s *Site) sizes() (sizes, error) {
	out := sizes{}
	list := []*process{}
	for _, r := range s.routers {
		list = append(list, &r.process)
	}
	for _, n := range s.running() {
		list = append(list, &n.process)
	}
	for _, p := range list {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
		if err != nil {
			return nil, fmt.Errorf("count the open files of %s: %w", p.name, err)
		}
		goroutines, err := p.metric(context.Background(), "go_goroutines")
		if err != nil {
			return nil, err
		}
		out[p.name] = [2]int{len(files), int(goroutines)}
	}
	return out, nil
}

// most returns the larger ones of two times.
func (s sizes) most(other sizes) sizes {
	out := sizes{}
	for name, n := range s {
		out[name] = [2]int{max(n[0], other[name][0]), max(n[1], other[name][1])}
	}
	return out
}

// grown names what has grown, empty for nothing.
func (s sizes) grown(before sizes) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if s[name][0] > before[name][0]+spare || s[name][1] > before[name][1]+spare {
			list = append(list, name)
		}
	}
	return strings.Join(list, ", ")
}

// text tells of them, and of what they were.
func (s sizes) text(before sizes) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		list = append(list, fmt.Sprintf("%s %d to %d files, %d to %d goroutines", name, before[name][0], s[name][0], before[name][1], s[name][1]))
	}
	return strings.Join(list, ", ")
}

// metric reads one metric of a process, whose samples it adds up. The error says so where there
// is none.
func (p *process) metric(ctx context.Context, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	p.mu.Lock()
	admin := p.admin
	p.mu.Unlock()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return 0, fmt.Errorf("read metrics of %s: %w", p.name, err)
	}
	defer response.Body.Close()
	sum, found := 0.0, false
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok && (rest[0] == ' ') {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				return 0, fmt.Errorf("read metrics of %s: %s: %w", p.name, name, err)
			}
			sum, found = sum+value, true
		}
	}
	if !found {
		return 0, fmt.Errorf("read metrics of %s: there is no %s", p.name, name)
	}
	return sum, nil
}

// hedges returns how many requests routers have sent beside slow ones, negative if they do not
// say.
func (s *Site) hedges(ctx context.Context) float64 {
	sum := 0.0
	for _, r := range s.routers {
		n, err := r.metric(ctx, `tandem_replica_requests_total{kind="hedge"}`)
		if err != nil {
			return -1
		}
		sum += n
	}
	return sum
}
