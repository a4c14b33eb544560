package deploy

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	kubernetesFolder = "../../deploy/kubernetes"
	kubernetesPage   = "../../docs/kubernetes.md"
)

// overlays are what people apply. What is in one namespace at a time belongs together: of two
// overlays beside one another, the second is for the namespace of the first.
var overlays = map[string][]string{
	"base":    {"base"},
	"example": {"overlays/example", "overlays/build"},
	"small":   {"overlays/small"},
}

// render returns the documents of a folder, as kustomize renders them.
func render(t *testing.T, folder string) string {
	k := krusty.MakeKustomizer(krusty.MakeDefaultOptions())
	all, err := k.Run(filesys.MakeFsOnDisk(), filepath.Join(kubernetesFolder, folder))
	if err != nil {
		t.Fatalf("%s: %v", folder, err)
	}
	text, err := all.AsYaml()
	if err != nil {
		t.Fatalf("%s: %v", folder, err)
	}
	return string(text)
}

// rendered is all of one namespace.
func rendered(t *testing.T, name string) string {
	var texts []string
	for _, folder := range overlays[name] {
		texts = append(texts, render(t, folder))
	}
	return strings.Join(texts, "---\n")
}

// objects are those of one namespace, by their types.
type objects struct {
	pods     []workload
	services []corev1.Service
	budgets  []policyv1.PodDisruptionBudget
	networks []networkingv1.NetworkPolicy
	scalers  []autoscalingv2.HorizontalPodAutoscaler
	configs  map[string]corev1.ConfigMap
	accounts map[string]corev1.ServiceAccount
	roles    map[string]rbacv1.Role
	bindings []rbacv1.RoleBinding
}

// workload is what makes pods.
type workload struct {
	name     string // kind/name
	pod      corev1.PodTemplateSpec
	selector *metav1.LabelSelector // nil of jobs
	replicas *int32
	set      *appsv1.StatefulSet // nil if it is none
	job      *batchv1.JobSpec    // nil if it is none
}

// strictDecoder refuses fields that the types of the API do not have, and fields that are there twice.
func strictDecoder(t *testing.T) runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme,
		networkingv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
}

// decode reads documents, and says what is wrong with them by the types of the API alone.
func decode(t *testing.T, text string) (all objects, problems []string) {
	all.configs, all.accounts, all.roles = map[string]corev1.ConfigMap{}, map[string]corev1.ServiceAccount{}, map[string]rbacv1.Role{}
	decoder, seen := strictDecoder(t), map[string]bool{}
	for i, document := range strings.Split(text, "\n---\n") {
		object, kind, err := decoder.Decode([]byte(document), nil, nil)
		if err != nil {
			problems = append(problems, fmt.Sprintf("document %d: %v", i, err))
			continue
		}
		name := kind.Kind + "/" + object.(metav1.Object).GetName()
		if seen[name] {
			problems = append(problems, name+" is there twice")
		}
		seen[name] = true
		switch o := object.(type) {
		case *appsv1.StatefulSet:
			all.pods = append(all.pods, workload{name: name, pod: o.Spec.Template, selector: o.Spec.Selector, replicas: o.Spec.Replicas, set: o})
		case *appsv1.Deployment:
			all.pods = append(all.pods, workload{name: name, pod: o.Spec.Template, selector: o.Spec.Selector, replicas: o.Spec.Replicas})
		case *batchv1.Job:
			all.pods = append(all.pods, workload{name: name, pod: o.Spec.Template, job: &o.Spec})
		case *batchv1.CronJob:
			all.pods = append(all.pods, workload{name: name, pod: o.Spec.JobTemplate.Spec.Template, job: &o.Spec.JobTemplate.Spec})
		case *corev1.Service:
			all.services = append(all.services, *o)
		case *policyv1.PodDisruptionBudget:
			all.budgets = append(all.budgets, *o)
		case *networkingv1.NetworkPolicy:
			all.networks = append(all.networks, *o)
		case *autoscalingv2.HorizontalPodAutoscaler:
			all.scalers = append(all.scalers, *o)
		case *corev1.ConfigMap:
			all.configs[o.Name] = *o
		case *corev1.ServiceAccount:
			all.accounts[o.Name] = *o
		case *rbacv1.Role:
			all.roles[o.Name] = *o
		case *rbacv1.RoleBinding:
			all.bindings = append(all.bindings, *o)
		default:
			problems = append(problems, name+" is of a kind that nothing is known of here")
		}
	}
	return all, problems
}

// manifestProblems says what is wrong with documents, of what the API server lets pass, too, beside
// the secrets that are documented and the metrics that there are.
func manifestProblems(t *testing.T, text string, secrets map[string][]string, counted metrics) []string {
	all, problems := decode(t, text)
	for _, w := range all.pods {
		for _, p := range slices.Concat(all.podProblems(w), all.referenceProblems(w, secrets), all.flagProblems(w), jobProblems(w)) {
			problems = append(problems, w.name+": "+p)
		}
	}
	return slices.Concat(problems, all.serviceProblems(), all.budgetProblems(), all.networkProblems(), all.rightsProblems(), all.scalerProblems(counted))
}

// TestManifests holds that what is rendered is what the API has, and that its parts fit together.
func TestManifests(t *testing.T) {
	secrets, counted := documentedSecrets(t), readMetrics(t)
	for name := range overlays {
		for _, p := range manifestProblems(t, rendered(t, name), secrets, counted) {
			t.Errorf("%s: %s", name, p)
		}
	}
}

// TestImagesArePinned holds that overlays name what runs by digest.
func TestImagesArePinned(t *testing.T) {
	digest := regexp.MustCompile(`^[^ ]+@sha256:[0-9a-f]{64}$`)
	for name := range overlays {
		all, _ := decode(t, rendered(t, name))
		for _, w := range all.pods {
			for _, c := range slices.Concat(w.pod.Spec.InitContainers, w.pod.Spec.Containers) {
				if name == "base" && c.Image != "tandem" || name != "base" && !digest.MatchString(c.Image) {
					t.Errorf("%s: %s: image is %q", name, w.name, c.Image)
				}
			}
		}
	}
}

// TestManifestProblems holds that each thing that can be wrong is found, where it is made wrong.
func TestManifestProblems(t *testing.T) {
	text, secrets, counted := rendered(t, "example"), documentedSecrets(t), readMetrics(t)
	for _, c := range []struct{ old, new, want string }{
		{"  replicas: 6\n", "  replica: 6\n", `unknown field "spec.replica"`},
		{"  replicas: 6\n", "  replicas: six\n", "cannot unmarshal string"},
		{"  serviceName: tandem-shards\n", "  serviceName: tandem-shards\n  serviceName: tandem\n", `key "serviceName" already set`},
		{"kind: PodDisruptionBudget", "kind: PodDisruptionBudge", `no kind "PodDisruptionBudge"`},
		{"  name: tandem-routers\n", "  name: tandem\n", "Service/tandem is there twice"},
		{"            port: admin\n", "            port: admim\n", `probe asks port "admim", which is none of the container`},
		{"            scheme: HTTPS\n", "            scheme: HTTP\n", "probe by HTTP, where the listener speaks TLS"},
		{"--admin=:6060", "--admin=:6061", "listens on no port of --admin=:6061"},
		{"- --listen=:7070", "- --listen=:7071", "listens on no port of --listen=:7071"},
		{"    targetPort: http\n", "    targetPort: htp\n", `port "htp" is none of`},
		{"tandem-shards:shard\n", "tandem-shards:rpc\n", `--nodes names the port "rpc"`},
		{"tandem-shards:shard\n", "tandem-shard:shard\n", `--nodes names the service "tandem-shard"`},
		{"- --store=$(STORE)", "- --store=$(STOR)", "$(STOR) is not in env"},
		{"            key: replicas\n", "            key: replica\n", `has no key "replica"`},
		{"          secretName: tandem-cluster\n", "          secretName: tandem-clusters\n", `secret "tandem-clusters" is not in docs/kubernetes.md`},
		{"          - key: cluster.token\n", "          - key: clusters.token\n", `secret "tandem-cluster" has no key "clusters.token"`},
		{"=/etc/tandem/cluster/tokens.yaml", "=/etc/tandem/cluster/token.yaml", `/etc/tandem/cluster/token.yaml is not mounted`},
		{"--state=/var/lib/tandem/state", "--state=/var/lib/state", "/var/lib/state is not mounted"},
		{"--cache=/var/lib/tandem/cache", "--cache=/etc/tandem/tls/cache", "is written, and mounted to be read only"},
		{"--cache-size=90GiB", "--cache-size=110GiB", "--cache-size is no less than its volume"},
		{"--drain-delay=10s", "--drain-delay=30s", "ends after 40s, and drains for up to 45s"},
		{"      terminationGracePeriodSeconds: 40\n", "", "ends after 30s, and drains for up to 25s: less than 10s more"},
		{"        runAsNonRoot: true\n", "", "may run as root"},
		{"            readOnlyRootFilesystem: true\n", "            readOnlyRootFilesystem: false\n", "may write to its image"},
		{"          allowPrivilegeEscalation: false\n", "          allowPrivilegeEscalation: true\n", "may escalate"},
		{"            cpu: \"4\"\n", "            cpu: 2500m\n", "processors are no whole number"},
		{"      enableServiceLinks: false\n", "", "has variables of services"},
		{"      serviceAccountName: tandem-router\n", "      serviceAccountName: tandem-routers\n", `there is no service account "tandem-routers"`},
		{"  - list\n  - watch\n", "  - list\n  - watch\n  - create\n", "rights are more than list and watch"},
		{"  name: tandem-router\n  namespace: tandem\n---", "  name: tandem-gc\n  namespace: tandem\n---", "may not see who the nodes are"},
		{"  name: tandem-router\n  namespace: tandem\n---", "  name: tandem-router\n  namespace: ads\n---", `service account "tandem-router" is of the namespace "ads"`},
		{"  maxUnavailable: 1\n", "  maxUnavailable: 2\n", "lets as many go as there are replicas"},
		{"  selector:\n    matchLabels:\n      app.kubernetes.io/component: shard\n", "  selector:\n    matchLabels:\n      app.kubernetes.io/component: shards\n", "selects no pods"},
		{"    - podSelector:\n        matchLabels:\n          app.kubernetes.io/component: shard\n", "    - podSelector:\n        matchLabels:\n          app.kubernetes.io/component: shards\n", "to which no pods belong"},
		{"  - ports:\n    - port: shard\n", "  - ports:\n    - port: shards\n", `port "shards" is none of`},
		{"          k8s-app: kube-dns\n", "          k8s-app: kube-dns\n          app.kubernetes.io/name: tandem\n", "DNS is not reached"},
		{"        name: tandem_requests_per_second\n", "        name: tandem_requests\n", `metric "tandem_requests" is none of adapter.yaml`},
		{"    kind: Deployment\n    name: tandem-router\n", "    kind: Deployment\n    name: tandem-routers\n", `scales "tandem-routers"`},
		{"  minReadySeconds: 10\n  progress", "  replicas: 3\n  minReadySeconds: 10\n  progress", "is scaled, and has a number of replicas"},
		{"            values:\n            - 2\n", "            values:\n            - 7\n", "exit code 7 is none that docs/kubernetes.md has end a job"},
		{"          containerName: tandem\n", "          containerName: tandems\n", `rule for the container "tandems"`},
	} {
		if !strings.Contains(text, c.old) {
			t.Errorf("nothing is rendered like %q", c.old)
			continue
		}
		found := strings.Join(manifestProblems(t, strings.ReplaceAll(text, c.old, c.new), secrets, counted), "\n")
		if !strings.Contains(found, c.want) {
			t.Errorf("%q in place of %q: found %q, want %q", c.new, c.old, found, c.want)
		}
	}
}

// documentedSecrets returns the keys of the secrets that docs/kubernetes.md has people make.
func documentedSecrets(t *testing.T) map[string][]string {
	all := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(tandem-[a-z-]+)` \\| (`[^|]*`) \\|").FindAllStringSubmatch(read(t, kubernetesPage), -1) {
		for _, key := range strings.Split(m[2], ", ") {
			all[m[1]] = append(all[m[1]], strings.Trim(key, "` "))
		}
	}
	if len(all) < 5 {
		t.Fatalf("the page documents the secrets %v", slices.Sorted(maps.Keys(all)))
	}
	return all
}
