package deploy

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// given returns what is given for a flag among the arguments of a container.
func given(c corev1.Container, name string) string {
	for _, arg := range c.Args {
		if value, ok := strings.CutPrefix(arg, name+"="); ok {
			return value
		}
	}
	return ""
}

// podProblems says what is wrong with how pods are run.
func (all *objects) podProblems(w workload) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	spec := w.pod.Spec
	if s := spec.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 {
		say("may run as root")
	} else if s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		say("may make any system call")
	}
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		say("has variables of services, which Tandem may take for its own")
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		s := c.SecurityContext
		switch {
		case s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation:
			say("may escalate")
		case s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem:
			say("may write to its image")
		case s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") || len(s.Capabilities.Add) > 0:
			say("has capabilities")
		}
		r := c.Resources
		if !r.Requests.Memory().Equal(*r.Limits.Memory()) || r.Limits.Memory().IsZero() {
			say("its memory is not what it asks for")
		}
		if !r.Limits.Cpu().IsZero() {
			say("its processors are limited, which holds queries back")
		}
		for _, e := range c.Env {
			if e.Name == "GOMAXPROCS" && r.Requests.Cpu().MilliValue()%1000 != 0 {
				say("its processors are no whole number, and GOMAXPROCS is more than they are")
			}
		}
		list = append(list, probeProblems(c)...)
		list = append(list, drainProblems(spec, c)...)
	}
	return list
}

// probeProblems says what is wrong with the ports and the probes of a container.
func probeProblems(c corev1.Container) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if !slices.Contains(c.Args, "serve") {
		return nil
	}
	scheme := corev1.URISchemeHTTP
	if given(c, "--tls-cert") != "" {
		scheme = corev1.URISchemeHTTPS
	}
	for _, name := range []string{"--listen", "--admin"} {
		if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
			return fmt.Sprint(":", p.ContainerPort) == given(c, name) && (p.Name == "admin") == (name == "--admin")
		}) {
			say("listens on no port of %s=%s", name, given(c, name))
		}
	}
	for want, p := range map[string]*corev1.Probe{"/healthz": c.StartupProbe, "/healthz ": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if p == nil || p.HTTPGet == nil {
			say("a probe is missing")
			continue
		}
		port := p.HTTPGet.Port.String()
		if port != "admin" || !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
			say("a probe asks port %q, which is none of the container, or not admin", port)
		}
		if p.HTTPGet.Path != strings.TrimSpace(want) {
			say("a probe asks for %q, want %q", p.HTTPGet.Path, strings.TrimSpace(want))
		}
		if is := p.HTTPGet.Scheme; is != scheme && (is != "" || scheme != corev1.URISchemeHTTP) {
			if scheme == corev1.URISchemeHTTPS {
				say("a probe by HTTP, where the listener speaks TLS")
			} else {
				say("a probe by %s, where the listener does not speak TLS", is)
			}
		}
	}
	return list
}

// drainMargin is what a server may take to end beside its drain.
const drainMargin = 10 * time.Second

// drainProblems says what is wrong with how long a server has to end.
func drainProblems(spec corev1.PodSpec, c corev1.Container) []string {
	if !slices.Contains(c.Args, "serve") {
		return nil
	}
	ends := 30 * time.Second
	if spec.TerminationGracePeriodSeconds != nil {
		ends = time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
	}
	var drains time.Duration
	for _, name := range []string{"--drain-delay", "--drain-timeout"} {
		d, err := time.ParseDuration(given(c, name))
		if err != nil {
			return []string{fmt.Sprintf("%s: %v", name, err)}
		}
		drains += d
	}
	if ends < drains+drainMargin {
		return []string{fmt.Sprintf("ends after %s, and drains for up to %s: less than %s more", ends, drains, drainMargin)}
	}
	return nil
}

// referenceProblems says what pods name that there is not.
func (all *objects) referenceProblems(w workload, secrets map[string][]string) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	secret := func(name, key string) {
		switch keys, ok := secrets[name]; {
		case !ok:
			say("secret %q is not in docs/kubernetes.md", name)
		case key != "" && !slices.Contains(keys, key):
			say("secret %q has no key %q", name, key)
		}
	}
	if name := w.pod.Spec.ServiceAccountName; all.accounts[name].Name == "" {
		say("there is no service account %q", name)
	}
	// What is in each volume, where that is known, and whether it can be written to.
	volumes := map[string]struct {
		files []string
		known bool
		size  *resource.Quantity
	}{}
	for _, v := range w.pod.Spec.Volumes {
		in := volumes[v.Name]
		switch {
		case v.Secret != nil:
			secret(v.Secret.SecretName, "")
			in.known, in.files = true, secrets[v.Secret.SecretName]
			if len(v.Secret.Items) > 0 {
				in.files = nil
			}
			for _, item := range v.Secret.Items {
				secret(v.Secret.SecretName, item.Key)
				in.files = append(in.files, item.Path)
			}
		case v.EmptyDir != nil:
			in.size = v.EmptyDir.SizeLimit
		case v.Ephemeral != nil:
			in.size = v.Ephemeral.VolumeClaimTemplate.Spec.Resources.Requests.Storage()
		default:
			say("volume %q is of a kind that nothing is known of here", v.Name)
		}
		volumes[v.Name] = in
	}
	if w.set != nil {
		for _, c := range w.set.Spec.VolumeClaimTemplates {
			in := volumes[c.Name]
			in.size = c.Spec.Resources.Requests.Storage()
			volumes[c.Name] = in
		}
	}
	for _, c := range w.pod.Spec.Containers {
		env := map[string]bool{}
		for _, e := range c.Env {
			env[e.Name] = true
			if e.ValueFrom == nil {
				continue
			}
			if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
				if _, ok := all.configs[r.Name].Data[r.Key]; !ok {
					say("ConfigMap/%s has no key %q", r.Name, r.Key)
				}
			}
			if r := e.ValueFrom.SecretKeyRef; r != nil {
				secret(r.Name, r.Key)
			}
		}
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil {
				secret(e.SecretRef.Name, "")
			}
		}
		for _, m := range regexp.MustCompile(`\$\((\w+)\)`).FindAllStringSubmatch(strings.Join(c.Args, " "), -1) {
			if !env[m[1]] {
				say("%s is not in env", m[0])
			}
		}
		for _, m := range c.VolumeMounts {
			if _, ok := volumes[m.Name]; !ok {
				say("there is no volume %q", m.Name)
			}
			if m.SubPath != "" && volumes[m.Name].known {
				say("%s is a subPath, which is not updated", m.MountPath)
			}
		}
		for _, arg := range c.Args {
			name, value, _ := strings.Cut(arg, "=")
			if !strings.HasPrefix(value, "/") {
				continue
			}
			i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return strings.HasPrefix(value, m.MountPath+"/") })
			if i < 0 {
				say("%s is not mounted", value)
				continue
			}
			mount := c.VolumeMounts[i]
			in := volumes[mount.Name]
			if in.known && !slices.Contains(in.files, path.Base(value)) && slices.Contains([]string{"--tokens", "--nodes-token", "--tls-cert", "--tls-key", "--nodes-tls-ca"}, name) {
				say("%s is not mounted", value)
			}
			if slices.Contains([]string{"--state", "--cache", "--staging", "--work"}, name) && (mount.ReadOnly || in.known) {
				say("%s is written, and mounted to be read only", value)
			}
			if text := given(c, "--cache-size"); name == "--cache" && text != "" && in.size != nil {
				size, err := resource.ParseQuantity(strings.TrimSuffix(text, "B"))
				if err != nil || size.Cmp(*in.size) >= 0 {
					say("--cache-size is no less than its volume: %s of %s", text, in.size)
				}
			}
		}
	}
	return list
}

// flagProblems says what is wrong with flags that name what is in the cluster.
func (all *objects) flagProblems(w workload) (list []string) {
	for _, c := range w.pod.Spec.Containers {
		source := given(c, "--nodes")
		if source == "" {
			continue
		}
		name, port, ok := strings.Cut(strings.TrimPrefix(source, "k8s:///$(NAMESPACE)/"), ":")
		if !ok {
			list = append(list, fmt.Sprintf("--nodes is %q", source))
			continue
		}
		i := slices.IndexFunc(all.services, func(s corev1.Service) bool { return s.Name == name })
		if i < 0 {
			list = append(list, fmt.Sprintf("--nodes names the service %q, which there is not", name))
			continue
		}
		if !slices.ContainsFunc(all.services[i].Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == port }) {
			list = append(list, fmt.Sprintf("--nodes names the port %q, which is none of the service", port))
		}
		if !all.mayWatch(w.pod.Spec.ServiceAccountName) || w.pod.Spec.AutomountServiceAccountToken == nil || !*w.pod.Spec.AutomountServiceAccountToken {
			list = append(list, "may not see who the nodes are")
		}
		// What the two are told alike.
		if want := "$(REPLICAS)"; given(c, "--replicas") != want {
			list = append(list, fmt.Sprintf("--replicas is %q, want %q", given(c, "--replicas"), want))
		}
	}
	return list
}

// notTriedAgain are the exit codes that end a job at once, by docs/kubernetes.md.
func notTriedAgain() map[int32]bool {
	page, err := os.ReadFile(kubernetesPage)
	if err != nil {
		return nil
	}
	codes := map[int32]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|.*\| fails at once \|$`).FindAllSubmatch(page, -1) {
		n, _ := strconv.Atoi(string(m[1])) // they are digits
		codes[int32(n)] = true
	}
	return codes
}

// jobProblems says what is wrong with when a job is tried again.
func jobProblems(w workload) (list []string) {
	if w.job == nil {
		return nil
	}
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if w.pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
		say("is started again by the kubelet, which looks at no exit code")
	}
	if w.job.ActiveDeadlineSeconds == nil {
		say("may hang for ever")
	}
	policy, ignores := w.job.PodFailurePolicy, false
	if policy == nil {
		return append(list, "tries again whatever the exit code")
	}
	ends := map[int32]bool{}
	for _, r := range policy.Rules {
		if r.OnExitCodes == nil {
			ignores = ignores || r.Action == batchv1.PodFailurePolicyActionIgnore
			continue
		}
		if name := r.OnExitCodes.ContainerName; name != nil && !slices.ContainsFunc(w.pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == *name }) {
			say("rule for the container %q, which there is not", *name)
		}
		for _, code := range r.OnExitCodes.Values {
			ends[code] = true
			if !notTriedAgain()[code] {
				say("exit code %d is none that docs/kubernetes.md has end a job", code)
			}
		}
	}
	if !ignores {
		say("a machine that is drained counts as a failure")
	}
	if !ends[2] {
		say("tries wrong flags again")
	}
	return list
}
