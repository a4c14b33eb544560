package deploy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

var kubectlPath = flag.String("kubectl", "", "the kubectl for TestCluster, which finds in KUBECONFIG a cluster as .ci/kube has it; none leaves it out")

// clusterPatience is how long controllers may take on a busy machine.
const clusterPatience = 10 * time.Minute

// kubectl runs one command.
type kubectl struct {
	t    *testing.T
	path string
}

func openCluster(t *testing.T) *kubectl {
	if *kubectlPath == "" {
		t.Skip("without -kubectl: .ci/run kube has an API server")
	}
	path, err := filepath.Abs(*kubectlPath)
	if err != nil {
		t.Fatal(err)
	}
	return &kubectl{t, path}
}

// try runs a command with an input, and returns what it prints, and its error with what it says.
func (k *kubectl) try(input string, args ...string) (string, error) {
	cmd := exec.CommandContext(k.t.Context(), k.path, args...)
	cmd.Dir = k.t.TempDir()
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return out.String(), nil
}

// do runs a command that is to succeed.
func (k *kubectl) do(input string, args ...string) string {
	k.t.Helper()
	out, err := k.try(input, args...)
	if err != nil {
		k.t.Fatal(err)
	}
	return out
}

// get reads objects into a list of the API's.
func (k *kubectl) get(into any, args ...string) {
	k.t.Helper()
	if err := json.Unmarshal([]byte(k.do("", append([]string{"-n", "tandem", "get", "-o", "json"}, args...)...)), into); err != nil {
		k.t.Fatal(err)
	}
}

// rolled waits until what is applied runs.
func (k *kubectl) rolled() {
	k.t.Helper()
	for _, what := range []string{"statefulset/tandem-shard", "deployment/tandem-router"} {
		k.do("", "-n", "tandem", "rollout", "status", what, "--timeout", clusterPatience.String())
	}
}

// shards are the pods of nodes that are to stay, with the zones of their machines.
func (k *kubectl) shards() (pods []corev1.Pod, zones map[string]int) {
	k.t.Helper()
	var list corev1.PodList
	k.get(&list, "pods", "-l", "app.kubernetes.io/component=shard")
	var machines corev1.NodeList
	k.get(&machines, "nodes")
	zones = map[string]int{}
	for _, p := range list.Items {
		if p.DeletionTimestamp != nil {
			continue
		}
		pods = append(pods, p)
		for _, m := range machines.Items {
			if m.Name == p.Spec.NodeName {
				zones[m.Labels["topology.kubernetes.io/zone"]]++
			}
		}
	}
	return pods, zones
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(clusterPatience); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", clusterPatience, what)
		}
	}
}

// TestCluster has a real API server check and run what is rendered.
func TestCluster(t *testing.T) {
	k := openCluster(t)
	for _, name := range []string{"tandem", "strict"} {
		k.do("", "create", "namespace", name)
		k.do("", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
	}

	for name := range overlays {
		if name == "base" { // it has no namespace, which accounts that have rights need
			continue
		}
		text := strings.ReplaceAll(rendered(t, name), "namespace: tandem\n", "namespace: strict\n")
		k.do(text, "-n", "strict", "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
	}
	text := rendered(t, "example")
	// What the server refuses; what it lets pass is what TestManifestProblems is for.
	for _, c := range []struct{ old, new, want string }{
		{"  replicas: 6\n", "  replica: 6\n", ".spec.replica: field not declared in schema"},
		{"        maxSkew: 1\n", "        maxSkew: 0\n", "maxSkew"},
		{"  verbs:\n", "  verbz:\n", ".rules[0].verbz: field not declared in schema"},
		{"      restartPolicy: Never\n", "      restartPolicy: OnFailure\n", "restartPolicy"},
		{"  completionMode: Indexed\n", "", "backoffLimitPerIndex"},
		{"  clusterIP: None\n", "  clusterIP: none\n", "clusterIP"},
	} {
		wrong := strings.ReplaceAll(strings.ReplaceAll(text, c.old, c.new), "namespace: tandem\n", "namespace: strict\n")
		said, err := k.try(wrong, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q in place of %q: the server says %v, want %q\n%s", c.new, c.old, err, c.want, said)
		}
	}

	k.do(rendered(t, "example"), "apply", "--server-side", "--validate=strict", "-l", "tandem.step notin (all, plan, partition, shard, commit)", "-f", "-")
	k.rolled()
	t.Run("spread", func(t *testing.T) { testSpread(&kubectl{t, k.path}) })
	t.Run("pods go", func(t *testing.T) { testPodsGo(&kubectl{t, k.path}) })
	t.Run("scale", func(t *testing.T) { testScale(&kubectl{t, k.path}) })
	t.Run("upgrade", func(t *testing.T) { testUpgrade(&kubectl{t, k.path}) })
	t.Run("a zone is lost", func(t *testing.T) { testZoneLost(&kubectl{t, k.path}) })
	t.Run("collection", func(t *testing.T) { testCollection(&kubectl{t, k.path}) })
	t.Run("build", func(t *testing.T) { testBuild(&kubectl{t, k.path}) })
}

// testSpread holds that nodes are on machines of their own, and alike in all zones, and that there
// are routers in each.
func testSpread(k *kubectl) {
	eventually(k.t, "the autoscaler has as many routers as it is to have at least", func() bool {
		var d appsv1.Deployment
		k.get(&d, "deployment/tandem-router")
		return d.Status.ReadyReplicas == 3
	})
	pods, zones := k.shards()
	machines := map[string]bool{}
	for _, p := range pods {
		machines[p.Spec.NodeName] = true
	}
	if len(pods) != 6 || len(machines) != 6 || len(zones) != 3 || zones["a"] != 2 || zones["b"] != 2 {
		k.t.Errorf("%d nodes are on %d machines, in zones %v", len(pods), len(machines), zones)
	}
	var slices discoveryv1.EndpointSliceList
	k.get(&slices, "endpointslices", "-l", "kubernetes.io/service-name=tandem-shards")
	n := 0
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			n++
			if e.Zone == nil || e.TargetRef == nil || e.TargetRef.Kind != "Pod" || len(s.Ports) != 1 || *s.Ports[0].Name != "shard" || *s.Ports[0].Port != 7070 {
				k.t.Errorf("slice %s: %+v, ports %+v", s.Name, e, s.Ports)
			}
		}
	}
	if n != 6 {
		k.t.Errorf("slices have %d nodes", n)
	}
}

// testPodsGo deletes a pod, drains a machine, and has the budget refuse two at a time.
func testPodsGo(k *kubectl) {
	pods, _ := k.shards()
	before := pods[0].UID
	k.do("", "-n", "tandem", "delete", "pod", pods[0].Name, "--wait=false")
	eventually(k.t, "the pod is made anew", func() bool {
		var p corev1.Pod
		if out, err := k.try("", "-n", "tandem", "get", "pod", pods[0].Name, "-o", "json"); err != nil || json.Unmarshal([]byte(out), &p) != nil {
			return false
		}
		return p.UID != before
	})
	k.rolled()

	evict := func(name string) error {
		_, err := k.try(fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": "tandem"}}`, name),
			"create", "--raw", "/api/v1/namespaces/tandem/pods/"+name+"/eviction", "-f", "-")
		return err
	}
	k.do("", "cordon", "-l", "topology.kubernetes.io/zone") // what goes stays away
	eventually(k.t, "the budget lets one go", func() bool { return evict(pods[1].Name) == nil })
	if err := evict(pods[2].Name); err == nil || !strings.Contains(err.Error(), "disruption budget") {
		k.t.Errorf("a second node may go beside one that is away: %v", err)
	}
	k.do("", "uncordon", "-l", "topology.kubernetes.io/zone")
	k.rolled()

	pods, _ = k.shards()
	machine := pods[3].Spec.NodeName
	k.do("", "drain", machine, "--delete-emptydir-data", "--ignore-daemonsets", "--timeout", clusterPatience.String())
	k.rolled()
	pods, zones := k.shards()
	if slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName == machine }) || len(zones) != 3 || len(pods) != 6 {
		k.t.Errorf("after a drain of %s there are %d nodes, in zones %v", machine, len(pods), zones)
	}
	k.do("", "uncordon", machine)
}

// testScale adds nodes, and takes them away with their volumes.
func testScale(k *kubectl) {
	claims := func() int {
		var list corev1.PersistentVolumeClaimList
		k.get(&list, "pvc")
		return len(list.Items)
	}
	k.do("", "-n", "tandem", "scale", "statefulset/tandem-shard", "--replicas=8")
	k.rolled()
	if pods, _ := k.shards(); len(pods) != 8 || claims() != 8 {
		k.t.Errorf("%d nodes with %d volumes, want 8", len(pods), claims())
	}
	k.do("", "-n", "tandem", "scale", "statefulset/tandem-shard", "--replicas=6")
	eventually(k.t, "6 nodes with 6 volumes", func() bool { pods, _ := k.shards(); return len(pods) == 6 && claims() == 6 })
}

// testUpgrade sets another image, and holds that never more than one node is away for it.
func testUpgrade(k *kubectl) {
	next := strings.ReplaceAll(render(k.t, "overlays/example"), "@sha256:0000", "@sha256:1111")
	k.do(next, "apply", "--server-side", "-l", "app.kubernetes.io/component=shard", "-f", "-")
	least := int32(6)
	eventually(k.t, "all nodes are of the new image", func() bool {
		var s appsv1.StatefulSet
		k.get(&s, "statefulset/tandem-shard")
		if s.Status.ObservedGeneration == s.Generation {
			least = min(least, s.Status.ReadyReplicas)
		}
		return s.Status.UpdatedReplicas == 6 && s.Status.ReadyReplicas == 6 && s.Status.UpdateRevision == s.Status.CurrentRevision
	})
	if least < 5 {
		k.t.Errorf("%d of 6 nodes were ready during the upgrade", least)
	}
	k.do(next, "apply", "--server-side", "-l", "app.kubernetes.io/component=router", "-f", "-")
	k.rolled()
}

// testZoneLost takes the machines of a zone away: who was there is started in the others.
func testZoneLost(k *kubectl) {
	k.do("", "taint", "nodes", "-l", "topology.kubernetes.io/zone=c", "lost=yes:NoExecute")
	var machines corev1.NodeList
	k.get(&machines, "nodes", "-l", "topology.kubernetes.io/zone=c")
	lost := func(p corev1.Pod) bool {
		return slices.ContainsFunc(machines.Items, func(m corev1.Node) bool { return m.Name == p.Spec.NodeName })
	}
	pods := func() []corev1.Pod {
		var list corev1.PodList
		k.get(&list, "pods", "-l", "app.kubernetes.io/component in (shard, router)")
		return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	}
	gone := 0
	for _, p := range pods() {
		if lost(p) {
			gone++
			k.do("", "-n", "tandem", "delete", "pod", p.Name, "--wait=false")
		}
	}
	if gone < 3 {
		k.t.Errorf("%d pods were in the zone, want two nodes and a router", gone)
	}
	eventually(k.t, "three nodes in each of two zones", func() bool {
		nodes, zones := k.shards()
		return len(nodes) == 6 && zones["a"] == 3 && zones["b"] == 3
	})
	k.rolled()
	if slices.ContainsFunc(pods(), lost) {
		k.t.Error("there are pods in the zone that is lost")
	}
	k.do("", "taint", "nodes", "-l", "topology.kubernetes.io/zone=c", "lost-")
}

// job waits until a job has ended, and returns it.
func (k *kubectl) job(name string) (j batchv1.Job) {
	k.t.Helper()
	eventually(k.t, "job "+name+" ends", func() bool {
		k.get(&j, "job", name)
		return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
			return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
		})
	})
	return j
}

// reasons are what the conditions of a job say.
func reasons(j batchv1.Job) string {
	var list []string
	for _, c := range j.Status.Conditions {
		list = append(list, string(c.Type)+" "+c.Reason)
	}
	return strings.Join(list, ", ")
}

func testCollection(k *kubectl) {
	k.do("", "-n", "tandem", "create", "job", "--from=cronjob/tandem-gc", "gc-now")
	if j := k.job("gc-now"); j.Status.Succeeded != 1 {
		k.t.Errorf("a collection: %s", reasons(j))
	}
}

// testBuild runs the steps of a build whose pods fail in all ways that there are.
func testBuild(k *kubectl) {
	folder := k.t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(kubernetesFolder)); err != nil {
		k.t.Fatal(err)
	}
	env := "store=s3://BUCKET\nbuild=4be1\ntasks=3\nshards=8\n"
	if err := os.WriteFile(filepath.Join(folder, "overlays/build/build.env"), []byte(env), 0o600); err != nil {
		k.t.Fatal(err)
	}
	build := k.do("", "kustomize", filepath.Join(folder, "overlays/build"))
	for _, c := range []struct {
		name, step string
		exits      map[string]string // by index and how often it has failed
		want       string
		check      func(j batchv1.Job) bool
	}{
		{"plan", "plan", nil, "Complete", func(j batchv1.Job) bool { return j.Status.Succeeded == 1 }},
		{"input that is refused, alone", "plan", map[string]string{"none-0": "5"}, "Failed PodFailurePolicy", func(j batchv1.Job) bool { return j.Status.Failed == 1 }},
		{"partition", "partition", nil, "Complete", func(j batchv1.Job) bool { return j.Status.CompletedIndexes == "0-2" }},
		{"an index that fails is tried again alone", "shard", map[string]string{"5-0": "1", "5-1": "137", "7-0": "143"}, "Complete",
			func(j batchv1.Job) bool {
				return j.Status.CompletedIndexes == "0-7" && j.Status.Failed == 3 && j.Status.Succeeded == 8
			}},
		{"an index that always fails leaves the others", "shard", map[string]string{"2-0": "1", "2-1": "1", "2-2": "1", "2-3": "1"}, "Failed FailedIndexes",
			func(j batchv1.Job) bool {
				return j.Status.CompletedIndexes == "0,1,3-7" && *j.Status.FailedIndexes == "2" && j.Status.Failed == 4
			}},
		{"input that is refused", "shard", map[string]string{"3-0": "5"}, "Failed PodFailurePolicy", func(j batchv1.Job) bool { return j.Status.Failed >= 1 }},
		{"wrong flags", "partition", map[string]string{"0-0": "2"}, "Failed PodFailurePolicy", func(j batchv1.Job) bool { return j.Status.Failed >= 1 }},
		{"gates that do not pass", "commit", map[string]string{"none-0": "3"}, "Failed PodFailurePolicy", func(j batchv1.Job) bool { return j.Status.Failed == 1 }},
		{"commit", "commit", nil, "Complete", func(j batchv1.Job) bool { return j.Status.Succeeded == 1 }},
	} {
		var one batchv1.Job
		name := "tandem-build-" + c.step
		var configs, jobs []string
		for _, document := range strings.Split(build, "\n---\n") {
			switch {
			case strings.Contains(document, "\nkind: ConfigMap\n"):
				configs = append(configs, document)
			case strings.Contains(document, "\n  name: "+name+"\n"):
				jobs = append(jobs, document)
			}
		}
		// Pods of jobs have exit codes by their annotations here.
		k.do(strings.Join(configs, "\n---\n"), "apply", "--server-side", "-f", "-")
		out := k.do(strings.Join(jobs, "\n---\n"), "create", "--dry-run=client", "-o", "json", "-f", "-")
		if err := json.Unmarshal([]byte(out), &one); err != nil {
			k.t.Fatal(err)
		}
		one.Spec.Template.Annotations = map[string]string{}
		for at, code := range c.exits {
			one.Spec.Template.Annotations["tandem.test/exit-"+at] = code
		}
		data, err := json.Marshal(one)
		if err != nil {
			k.t.Fatal(err)
		}
		k.do(string(data), "create", "-f", "-")
		if j := k.job(name); !strings.Contains(reasons(j), c.want) || !c.check(j) {
			k.t.Errorf("%s: %s, want %s: %+v", c.name, reasons(j), c.want, j.Status)
		}
		k.do("", "-n", "tandem", "delete", "job", name, "--wait=true")
	}
}
