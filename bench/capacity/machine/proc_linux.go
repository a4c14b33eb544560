package machine

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// spent returns the seconds that a processor has worked for this thread: where others use it too,
// the time that passes says little.
func spent() (float64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read the time of a thread: %w", err)
	}
	return float64(t.Nano()) / 1e9, nil
}

// ownCPU returns the seconds that processors have worked for this process.
func ownCPU() (float64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read the time of the process: %w", err)
	}
	return float64(t.Nano()) / 1e9, nil
}

// processCPU returns the seconds that processors have worked for the threads that a process has,
// exactly, where /proc/PID/stat counts hundredths.
func processCPU(pid int) (float64, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("read the CPU time of process %d: it has no threads that tell", pid)
	}
	sum := 0.0
	for _, path := range tasks {
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // it has ended
		}
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
		}
		word, _, _ := strings.Cut(string(data), " ")
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of process %d: %s: %w", pid, path, err)
		}
		sum += float64(n) / 1e9
	}
	return sum, nil
}

// memoryOf returns the bytes that a process has in memory: of its own, and its part of files that it
// maps, which are divided by how many map them.
func memoryOf(pid int) (own, files float64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	defer f.Close()
	found := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		for name, to := range map[string]*float64{"Pss_Anon:": &own, "Pss_File:": &files} {
			if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
				kb, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
				if err != nil {
					return 0, 0, fmt.Errorf("read the memory of process %d: %s is %q, want a number of kB", pid, name, strings.TrimSpace(rest))
				}
				*to = float64(kb) * 1024
				found++
			}
		}
	}
	if found != 2 {
		return 0, 0, fmt.Errorf("read the memory of process %d: the kernel does not tell Pss_Anon and Pss_File", pid)
	}
	return own, files, nil
}

// machineCPU returns the seconds that all processors of the machine have worked.
func machineCPU() (float64, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("read /proc/stat: it begins with %.100q", line)
	}
	sum := 0.0
	for i, field := range fields[1:9] { // user, nice, system, idle, iowait, irq, softirq, steal
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		if i != 3 && i != 4 {
			sum += float64(n) / 100
		}
	}
	return sum, nil
}

// model returns what the processor calls itself.
func model() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
