package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandem-ann/tandem/server/resident"
)

// residentMemory shows how much memory of the machine the process has, by what is in it: that of
// mapped snapshots can be given back and read again, that of the heap cannot.
type residentMemory struct{ desc *prometheus.Desc }

func newResidentMemory() *residentMemory {
	return &residentMemory{prometheus.NewDesc("tandem_resident_memory_bytes",
		"Memory of the machine that the process has, in bytes: anonymous, as the heap, or of mapped files, as snapshots. Left out where the system does not tell.",
		[]string{"kind"}, nil)}
}

// Describe implements [prometheus.Collector].
func (r *residentMemory) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

// Collect implements [prometheus.Collector].
func (r *residentMemory) Collect(ch chan<- prometheus.Metric) {
	m, err := resident.Self()
	if err != nil {
		return // it is not Linux, or hides /proc
	}
	ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, float64(m.Anonymous), "anonymous")
	ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, float64(m.File), "file")
}
