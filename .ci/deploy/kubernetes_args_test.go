package deploy

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// exitUsage is how the command ends that was called in a wrong way.
const exitUsage = 2

// TestArguments holds that the command takes the arguments of all pods: it ends because there is
// no store, and not because of how it was called.
func TestArguments(t *testing.T) {
	dir := t.TempDir()
	tandem := filepath.Join(dir, "tandem")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", tandem, "./cmd/tandem")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(args ...string) (int, string) {
		cmd := exec.CommandContext(t.Context(), tandem, args...)
		cmd.Dir, cmd.WaitDelay = t.TempDir(), time.Minute
		cmd.Env = append(os.Environ(), "KUBERNETES_SERVICE_HOST=127.0.0.1", "KUBERNETES_SERVICE_PORT=1", "JOB_COMPLETION_INDEX=0")
		out, err := cmd.CombinedOutput()
		if exited := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exited) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	values := strings.NewReplacer("$(NAMESPACE)", "tandem", "$(POD)", "tandem-shard-0", "$(REPLICAS)", "2", "$(BUILD)", "4be1",
		"/var/lib/tandem", filepath.Join(dir, "lib"), "/etc/tandem", filepath.Join(dir, "etc"), "s3://BUCKET/", filepath.Join(dir, "inputs")+"/", "?region=eu-west-1", "")
	known, _ := run("build", "plan", "--help")
	constants := regexp.MustCompile(`(?m)^\texit\w+ += (\d+)$`).FindAllStringSubmatch(read(t, "../../cmd/tandem/run.go"), -1)
	for code := range notTriedAgain() {
		if known == 0 && !slices.ContainsFunc(constants, func(m []string) bool { return m[1] == fmt.Sprint(code) }) {
			t.Errorf("docs/kubernetes.md has exit code %d, which is none of %v", code, constants)
		}
	}
	for name := range overlays {
		all, _ := decode(t, rendered(t, name))
		for _, w := range all.pods {
			args := w.pod.Spec.Containers[0].Args
			if args[0] == "build" && known != 0 {
				t.Logf("%s: %s is not tried: this command has no build plan", name, w.name)
				continue
			}
			// A store of its own: some make one, and others would find it.
			store := strings.ReplaceAll(strings.Join(args, "\x00"), "$(STORE)", filepath.Join(t.TempDir(), "none"))
			args = strings.Split(values.Replace(store), "\x00")
			if code, said := run(args...); code == exitUsage || code <= 0 {
				t.Errorf("%s: %s: exit code %d: %s", name, w.name, code, said)
			}
			if code, said := run(append(args, "--nonesuch")...); code != exitUsage {
				t.Errorf("%s: %s: exit code %d of an unknown flag: %s", name, w.name, code, said)
			}
		}
	}
}
