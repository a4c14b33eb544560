package metrics

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// resident shows how much memory of the machine the process has, by what is in it: that of
// mapped snapshots can be given back and read again, that of the heap cannot.
type resident struct {
	root fs.FS // of the machine
	desc *prometheus.Desc
}

func newResident() *resident {
	return &resident{os.DirFS("/"), prometheus.NewDesc("tandem_resident_memory_bytes",
		"Memory of the machine that the process has, in bytes: anonymous, as the heap, or of mapped files, as snapshots. Left out where the system does not tell.",
		[]string{"kind"}, nil)}
}

// Describe implements [prometheus.Collector].
func (r *resident) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

// Collect implements [prometheus.Collector].
func (r *resident) Collect(ch chan<- prometheus.Metric) {
	anonymous, file, err := residentOf(r.root)
	if err != nil {
		return // it is not Linux, or hides /proc
	}
	ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, float64(anonymous), "anonymous")
	ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, float64(file), "file")
}

// residentOf returns RssAnon and RssFile of this process, in bytes.
func residentOf(root fs.FS) (anonymous, file int64, err error) {
	const name = "proc/self/status"
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, 0, err
	}
	values := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
			values[fields[0]] = kib << 10
		}
	}
	anonymous, hasAnonymous := values["RssAnon:"]
	file, hasFile := values["RssFile:"]
	if !hasAnonymous || !hasFile {
		return 0, 0, fmt.Errorf("read /%s: it has no RssAnon or no RssFile", name)
	}
	return anonymous, file, nil
}
