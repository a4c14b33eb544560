package bench

import (
	"fmt"
	"io"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

// LoadReport is what a load measured. The names of its JSON fields are stable.
type LoadReport struct {
	Server        string          `json:"server"`
	Protocol      string          `json:"protocol"`
	Model         string          `json:"model"`
	ModelVersion  string          `json:"model_version"`
	Snapshot      manifest.Digest `json:"snapshot"`
	Shards        int             `json:"shards"` // of the tower that was searched
	K             int             `json:"k"`
	Ef            int             `json:"ef,omitempty"`
	Target        float64         `json:"target,omitempty"`
	Filter        string          `json:"filter,omitempty"`
	Segment       string          `json:"segment,omitempty"`
	Users         int             `json:"users"`                  // different users that asked
	Bytes         int             `json:"bytes"`                  // the first answer's size
	Recall        *float64        `json:"recall,omitempty"`       // absent if it was not measured
	Worst         *float64        `json:"recall_worst,omitempty"` // mean of the worst percent
	RecallQueries int             `json:"recall_queries,omitempty"`
	Processors    int             `json:"processors"` // of the load generator's machine
	Go            string          `json:"go"`
	Platform      string          `json:"platform"`
	Results       []LoadResult    `json:"results"` // by the number of clients, as asked for
}

// LoadResult is what one number of clients saw. Times are in microseconds. CPU
// times are means a query; the server's is 0 if it was not measured.
type LoadResult struct {
	Clients    int     `json:"clients"`
	Seconds    float64 `json:"seconds"`
	Queries    int     `json:"queries"` // answered
	Short      int     `json:"short"`   // of these, with fewer than k candidates
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	QPS        float64 `json:"qps"`
	Mean       float64 `json:"mean_us"`
	P50        float64 `json:"p50_us"`
	P95        float64 `json:"p95_us"`
	P99        float64 `json:"p99_us"`
	Max        float64 `json:"max_us"`
	ServerCPU  float64 `json:"server_cpu_us,omitempty"`
	ClientCPU  float64 `json:"client_cpu_us,omitempty"` // of the load generator
}

// WriteJSON writes the report as one indented object.
func (r *LoadReport) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, r) }

// WriteTable writes the report for people.
func (r *LoadReport) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	fmt.Fprintf(b, "server    %s over %s: %s at %s, snapshot %s, %d shards\n",
		r.Server, r.Protocol, r.Model, r.ModelVersion, r.Snapshot.Short(), r.Shards)
	how := fmt.Sprintf("recall target %v", r.Target)
	if r.Ef > 0 {
		how = fmt.Sprintf("ef %d", r.Ef)
	}
	fmt.Fprintf(b, "queries   k=%d, %s, of %d real users; an answer has %d bytes\n", r.K, how, r.Users, r.Bytes)
	switch {
	case r.Segment != "" && r.Filter != "":
		fmt.Fprintf(b, "filter    %s in segment %s\n", r.Filter, r.Segment)
	case r.Segment != "":
		fmt.Fprintf(b, "segment   %s\n", r.Segment)
	case r.Filter != "":
		fmt.Fprintf(b, "filter    %s\n", r.Filter)
	}
	if r.Recall != nil {
		fmt.Fprintf(b, "recall    %.4f on %d users, %.3f on the worst 1%%, against an exact scan\n", *r.Recall, r.RecallQueries, *r.Worst)
	}
	fmt.Fprintf(b, "clients   a connection each, closed loop, on %s with %d processors, %s\n\n", r.Platform, r.Processors, r.Go)
	t := wording.NewTable(b, wording.Right)
	fmt.Fprintln(t, "clients\tqueries\terrors\tshort\tqps\tmean\tp50\tp95\tp99\tmax\tserver CPU\tclient CPU\t")
	measured := false
	for _, x := range r.Results {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", x.Clients, x.Queries, x.Errors, x.Short, x.QPS,
			micros(x.Mean), micros(x.P50), micros(x.P95), micros(x.P99), micros(x.Max), cpuText(x.ServerCPU), cpuText(x.ClientCPU))
		measured = measured || x.ServerCPU > 0
	}
	_ = t.Flush() // a page takes everything
	b.WriteByte('\n')
	if measured {
		b.WriteString("CPU is a query's, of user and kernel, warm-up left out\n")
	} else {
		b.WriteString("the server's CPU was not measured; that takes its process id, on the same machine\n")
	}
	for _, x := range r.Results {
		if x.FirstError != "" {
			fmt.Fprintf(b, "first error of %d clients: %s\n", x.Clients, x.FirstError)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func cpuText(us float64) string {
	if us == 0 {
		return "-"
	}
	return micros(us)
}
