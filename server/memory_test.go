package server

import (
	"io/fs"
	"log/slog"
	"math"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
)

const (
	gib = 1 << 30
	// meminfo is of a machine with 16 GiB.
	meminfo = "MemTotal:       16777216 kB\nMemFree:         9000000 kB\n"
	// noLimit is how version 1 says so.
	noLimit = "9223372036854771712\n"
)

// The mounts of machines, as systemd makes them: of version 2, of version 1, of both.
const (
	unifiedMounts = `24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard
25 24 0:23 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
30 29 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	legacyMounts = `24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 29 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
34 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
35 30 0:32 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory
`
	hybridMounts = legacyMounts + `38 30 0:38 / /sys/fs/cgroup/unified rw,relatime shared:17 - cgroup2 cgroup2 rw
`
)

func TestMemoryOf(t *testing.T) {
	for _, test := range []struct {
		name   string
		cgroup string // proc/self/cgroup
		mounts string // proc/self/mountinfo
		files  map[string]string
		bytes  int64
		from   string
	}{
		{
			name: "no control groups", bytes: 16 * gib, from: "/proc/meminfo",
		},
		{
			name: "v2, a service of systemd", cgroup: "0::/system.slice/tandem.service\n", mounts: unifiedMounts,
			files: map[string]string{
				"sys/fs/cgroup/system.slice/memory.max":                 "max\n",
				"sys/fs/cgroup/system.slice/memory.high":                "max\n",
				"sys/fs/cgroup/system.slice/tandem.service/memory.max":  "4294967296\n",
				"sys/fs/cgroup/system.slice/tandem.service/memory.high": "max\n",
				"sys/fs/cgroup/system.slice/other.service/memory.max":   "1048576\n",
			},
			bytes: 4 * gib, from: "/sys/fs/cgroup/system.slice/tandem.service/memory.max",
		},
		{
			name: "v2, the slice allows less", cgroup: "0::/ml.slice/ml-serving.slice/tandem.service\n", mounts: unifiedMounts,
			files: map[string]string{
				"sys/fs/cgroup/ml.slice/memory.max":                                 "2147483648\n",
				"sys/fs/cgroup/ml.slice/ml-serving.slice/memory.max":                "max\n",
				"sys/fs/cgroup/ml.slice/ml-serving.slice/tandem.service/memory.max": "8589934592\n",
			},
			bytes: 2 * gib, from: "/sys/fs/cgroup/ml.slice/memory.max",
		},
		{
			name: "v2, slowed down before the limit", cgroup: "0::/a\n", mounts: unifiedMounts,
			files: map[string]string{"sys/fs/cgroup/a/memory.max": "4294967296\n", "sys/fs/cgroup/a/memory.high": "3221225472\n"},
			bytes: 3 * gib, from: "/sys/fs/cgroup/a/memory.high",
		},
		{
			name: "v2, no limit", cgroup: "0::/user.slice/user-1000.slice/session-2.scope\n", mounts: unifiedMounts,
			files: map[string]string{"sys/fs/cgroup/user.slice/memory.max": "max\n", "sys/fs/cgroup/user.slice/memory.high": "max\n"},
			bytes: 16 * gib, from: "/proc/meminfo",
		},
		{
			name: "v2, the limit is above the machine's memory", cgroup: "0::/a\n", mounts: unifiedMounts,
			files: map[string]string{"sys/fs/cgroup/a/memory.max": "68719476736\n"},
			bytes: 16 * gib, from: "/proc/meminfo",
		},
		{
			name: "v2, Docker with a namespace of control groups", cgroup: "0::/\n",
			mounts: `612 520 0:44 / / rw,relatime master:263 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/AAA
616 614 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
`,
			files: map[string]string{"sys/fs/cgroup/memory.max": "1073741824\n", "sys/fs/cgroup/memory.high": "max\n"},
			bytes: gib, from: "/sys/fs/cgroup/memory.max",
		},
		{
			name: "v2, Docker with the host's namespace", cgroup: "0::/system.slice/docker-3f1c.scope\n",
			mounts: "616 614 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n",
			files: map[string]string{
				"sys/fs/cgroup/system.slice/memory.max":                   "max\n",
				"sys/fs/cgroup/system.slice/docker-3f1c.scope/memory.max": "1073741824\n",
			},
			bytes: gib, from: "/sys/fs/cgroup/system.slice/docker-3f1c.scope/memory.max",
		},
		{
			name: "v2, Podman mounts its own part", cgroup: "0::/machine.slice/libpod-9.scope/container\n",
			mounts: "616 614 0:26 /machine.slice/libpod-9.scope /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
			files: map[string]string{
				"sys/fs/cgroup/memory.max":           "2147483648\n",
				"sys/fs/cgroup/container/memory.max": "max\n",
			},
			bytes: 2 * gib, from: "/sys/fs/cgroup/memory.max",
		},
		{
			name: "v2, Kubernetes, the pod is not seen", cgroup: "0::/\n",
			mounts: "988 980 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n",
			files:  map[string]string{"sys/fs/cgroup/memory.max": "536870912\n"},
			bytes:  gib / 2, from: "/sys/fs/cgroup/memory.max",
		},
		{
			name: "v1, Docker", cgroup: "12:memory:/docker/3f1c\n11:cpu,cpuacct:/docker/3f1c\n1:name=systemd:/docker/3f1c\n",
			mounts: `700 690 0:31 /docker/3f1c /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,cpu,cpuacct
701 690 0:32 /docker/3f1c /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory
`,
			files: map[string]string{
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
				"sys/fs/cgroup/memory/memory.stat":           "cache 0\nhierarchical_memory_limit 1073741824\ntotal_cache 0\n",
			},
			bytes: gib, from: "/sys/fs/cgroup/memory/memory.stat",
		},
		{
			name: "v1, Kubernetes, the pod allows less", cgroup: "9:memory:/kubepods/burstable/pod1/c\n",
			mounts: "701 690 0:32 /kubepods/burstable/pod1/c /sys/fs/cgroup/memory ro master:16 - cgroup cgroup rw,memory\n",
			files: map[string]string{
				"sys/fs/cgroup/memory/memory.limit_in_bytes": noLimit,
				"sys/fs/cgroup/memory/memory.stat":           "hierarchical_memory_limit 536870912\n",
			},
			bytes: gib / 2, from: "/sys/fs/cgroup/memory/memory.stat",
		},
		{
			name: "v1, a service of systemd", cgroup: "5:memory:/system.slice/tandem.service\n3:cpu,cpuacct:/\n", mounts: legacyMounts,
			files: map[string]string{
				"sys/fs/cgroup/memory/memory.limit_in_bytes":                             noLimit,
				"sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes":                "3221225472\n",
				"sys/fs/cgroup/memory/system.slice/tandem.service/memory.limit_in_bytes": "4294967296\n",
			},
			bytes: 3 * gib, from: "/sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes",
		},
		{
			name: "v1, no limit, as kernels say it", cgroup: "5:memory:/a\n", mounts: legacyMounts,
			files: map[string]string{
				"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "18446744073709551615\n",
				"sys/fs/cgroup/memory/a/memory.stat":           "hierarchical_memory_limit " + noLimit,
			},
			bytes: 16 * gib, from: "/proc/meminfo",
		},
		{
			name: "v1 beside v2 without controllers", cgroup: "5:memory:/a/b\n0::/x\n", mounts: hybridMounts,
			files: map[string]string{
				"sys/fs/cgroup/memory/a/b/memory.stat":       "hierarchical_memory_limit 2147483648\n",
				"sys/fs/cgroup/unified/x/cgroup.controllers": "\n",
			},
			bytes: 2 * gib, from: "/sys/fs/cgroup/memory/a/b/memory.stat",
		},
		{
			name: "LXC, meminfo is its own", cgroup: "0::/lxc.payload.web\n",
			mounts: "616 614 0:26 /lxc.payload.web /sys/fs/cgroup rw - cgroup2 none rw\n",
			files:  map[string]string{"proc/meminfo": "MemTotal:  2097152 kB\n", "sys/fs/cgroup/memory.max": "2147483648\n"},
			bytes:  2 * gib, from: "/proc/meminfo",
		},
		{
			name: "a path with a space, mounted elsewhere", cgroup: "0::/my group\n",
			mounts: `616 614 0:26 /my\040group /mnt/c\040g rw shared:1 master:2 - cgroup2 none rw` + "\n",
			files:  map[string]string{"mnt/c g/memory.max": "1073741824\n"},
			bytes:  gib, from: "/mnt/c g/memory.max",
		},
		{
			name: "the group is outside of the namespace", cgroup: "0::/../other\n", mounts: unifiedMounts,
			files: map[string]string{"sys/fs/cgroup/memory.max": "1048576\n", "sys/fs/other/memory.max": "1048576\n"},
			bytes: 16 * gib, from: "/proc/meminfo",
		},
		{
			name: "a group whose name begins like what is mounted", cgroup: "0::/docker/ab\n",
			mounts: "616 614 0:26 /docker/a /sys/fs/cgroup rw - cgroup2 none rw\n",
			files:  map[string]string{"sys/fs/cgroup/memory.max": "1048576\n", "sys/fs/cgroup/b/memory.max": "1048576\n"},
			bytes:  16 * gib, from: "/proc/meminfo",
		},
		{
			name: "a group that was removed", cgroup: "0::/a/gone (deleted)\n", mounts: unifiedMounts,
			files: map[string]string{"sys/fs/cgroup/a/memory.max": "1073741824\n"},
			bytes: gib, from: "/sys/fs/cgroup/a/memory.max",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{"proc/meminfo": {Data: []byte(meminfo)}}
			if test.cgroup != "" {
				root["proc/self/cgroup"] = &fstest.MapFile{Data: []byte(test.cgroup)}
				root["proc/self/mountinfo"] = &fstest.MapFile{Data: []byte(test.mounts)}
			}
			for name, text := range test.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			got, err := memoryOf(root)
			require.NoError(t, err)
			assert.Equal(t, memoryBound{test.bytes, test.from}, got)
			assert.Equal(t, int64(float64(test.bytes)*0.8), got.share())
		})
	}
}

// locked is a file system of which one file cannot be read.
type locked struct {
	fs.FS
	name string
}

func (l locked) Open(name string) (fs.File, error) {
	if name == l.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return l.FS.Open(name)
}

// What cannot be read is said, and what can counts.
func TestMemoryThatCannotBeRead(t *testing.T) {
	whole := fstest.MapFS{
		"proc/meminfo":               {Data: []byte(meminfo)},
		"proc/self/cgroup":           {Data: []byte("0::/a\n")},
		"proc/self/mountinfo":        {Data: []byte(unifiedMounts)},
		"sys/fs/cgroup/a/memory.max": {Data: []byte("1073741824\n")},
	}
	for name, want := range map[string]memoryBound{
		"proc/meminfo":               {gib, "/sys/fs/cgroup/a/memory.max"},
		"proc/self/cgroup":           {16 * gib, "/proc/meminfo"},
		"proc/self/mountinfo":        {16 * gib, "/proc/meminfo"},
		"sys/fs/cgroup/a/memory.max": {16 * gib, "/proc/meminfo"},
	} {
		got, err := memoryOf(locked{whole, name})
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, name)
		require.Equal(t, want, got, name)
	}
	for name, text := range map[string]string{
		"proc/meminfo": "MemFree: 1 kB\n", "proc/self/cgroup": "no group\n",
		"proc/self/mountinfo": "no mount\n", "sys/fs/cgroup/a/memory.max": "much\n",
	} {
		root := fstest.MapFS{}
		for other, file := range whole {
			root[other] = file
		}
		root[name] = &fstest.MapFile{Data: []byte(text)}
		_, err := memoryOf(root)
		require.ErrorContains(t, err, "read /"+name, text)
	}
	got, err := memoryOf(fstest.MapFS{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, int64(math.MaxInt64), got.share())
}

func TestMemoryLimitIsLogged(t *testing.T) {
	for _, test := range []struct {
		limit int64
		root  fs.FS
		want  string
	}{
		{0, fstest.MapFS{"proc/meminfo": {Data: []byte(meminfo)}}, `msg="memory limit" bytes=13743895347 of=17179869184 from=/proc/meminfo`},
		{5000, fstest.MapFS{}, `msg="memory limit" bytes=5000 from="the configuration"`},
		{0, fstest.MapFS{}, `msg="no memory limit" from=nothing`},
	} {
		var log lockedLog
		c := Config{MemoryLimit: test.limit}
		events.NewLog(slog.New(slog.NewTextHandler(&log, nil))).MemoryLimit(limitMemory(&c, test.root))
		assert.Contains(t, log.String(), test.want)
		assert.Positive(t, c.MemoryLimit)
	}
}

// A snapshot that does not fit is not served without a release either.
func TestMemoryLimitHoldsWithoutARelease(t *testing.T) {
	store := smallTowers(index.Dot).publish(t)
	digest, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)
	m, err := store.Manifest(t.Context(), digest)
	require.NoError(t, err)
	size := bytesOf(m)
	err = Run(t.Context(), Config{Store: store, Snapshot: string(digest), Listen: "127.0.0.1:0", MemoryLimit: size - 1, Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "load snapshot "+digest.Short()+": not admitted: it takes ")
	p := start(t, Config{Store: store, Snapshot: string(digest), MemoryLimit: size})
	p.stop()
	require.NoError(t, <-p.done)
}
