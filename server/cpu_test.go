package server

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCPUOf(t *testing.T) {
	const service = "sys/fs/cgroup/ml.slice/tandem.service/"
	for _, test := range []struct {
		name                      string
		files                     map[string]string
		group, machine, throttled time.Duration // negative if it is not told
	}{
		{"a kernel that tells nothing", nil, -1, -1, -1},
		{"no control groups", map[string]string{
			"proc/pressure/cpu": "some avg10=97.75 avg60=95.03 avg300=90.19 total=6093425175\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
		}, -1, 6093425175 * time.Microsecond, -1},
		{"v2, throttled by its own limit and by that of the slice", map[string]string{
			"proc/self/cgroup": "0::/ml.slice/tandem.service\n", "proc/self/mountinfo": unifiedMounts,
			"proc/pressure/cpu":                   "some avg10=0.00 avg60=0.00 avg300=0.00 total=9000000\n",
			service + "cpu.pressure":              "some avg10=0.00 avg60=0.00 avg300=0.00 total=4000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
			service + "cpu.stat":                  "usage_usec 5\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2500000\n",
			"sys/fs/cgroup/ml.slice/cpu.stat":     "usage_usec 9\nnr_throttled 1\nthrottled_usec 500000\n",
			"sys/fs/cgroup/ml.slice/cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=8000000\n",
		}, 4 * time.Second, 9 * time.Second, 3 * time.Second},
		{"v2, without the controller, and with pressure that is off", map[string]string{
			"proc/self/cgroup": "0::/ml.slice/tandem.service\n", "proc/self/mountinfo": unifiedMounts,
			service + "cpu.pressure": "", service + "cpu.stat": "usage_usec 5\nuser_usec 4\nsystem_usec 1\n",
		}, -1, -1, -1},
		{"v1", map[string]string{
			"proc/self/cgroup": "4:memory:/other\n3:cpu,cpuacct:/docker/3f1c\n", "proc/self/mountinfo": legacyMounts,
			"sys/fs/cgroup/cpu,cpuacct/docker/3f1c/cpu.stat": "nr_periods 9\nnr_throttled 2\nthrottled_time 1500000000\n",
		}, -1, -1, 1500 * time.Millisecond},
		{"hybrid: pressure of version 2, the controller of version 1", map[string]string{
			"proc/self/cgroup": "3:cpu,cpuacct:/a\n0::/a\n", "proc/self/mountinfo": hybridMounts,
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.stat":   "throttled_time 1000000000\n",
			"sys/fs/cgroup/unified/a/cpu.pressure":   "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n",
			"sys/fs/cgroup/unified/a/b/cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=7000000\n",
		}, 2 * time.Second, -1, time.Second},
		{"one group by two mounts counts once", map[string]string{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": unifiedMounts + "31 29 0:26 / /mnt rw - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/a/cpu.stat": "throttled_usec 1000000\n", "mnt/a/cpu.stat": "throttled_usec 1000000\n",
		}, -1, -1, time.Second},
		{"what is no number", map[string]string{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": unifiedMounts,
			"proc/pressure/cpu": "some avg10=0.00 total=x\n", "sys/fs/cgroup/a/cpu.stat": "throttled_usec -1\n",
		}, -1, -1, -1},
	} {
		root := fstest.MapFS{}
		for name, text := range test.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		got := cpuOf(root)
		told := func(d *time.Duration) time.Duration {
			if d == nil {
				return -1
			}
			return *d
		}
		require.Equal(t, test.group, told(got.GroupWait), "%s: wait of the group", test.name)
		require.Equal(t, test.machine, told(got.MachineWait), "%s: wait of the machine", test.name)
		require.Equal(t, test.throttled, told(got.Throttled), "%s: throttled", test.name)
	}
}
