package deploy

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// selected returns what makes pods that a selector selects.
func (all *objects) selected(s *metav1.LabelSelector) (list []workload) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	for _, w := range all.pods {
		if selector.Matches(labels.Set(w.pod.Labels)) {
			list = append(list, w)
		}
	}
	return list
}

// lackPort returns those pods that have no port of a name or number.
func lackPort(pods []workload, port intstr.IntOrString) (list []string) {
	for _, w := range pods {
		if !slices.ContainsFunc(w.pod.Spec.Containers, func(c corev1.Container) bool {
			return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
				return p.Name == port.StrVal && port.StrVal != "" || port.StrVal == "" && p.ContainerPort == port.IntVal
			})
		}) {
			list = append(list, w.name)
		}
	}
	return list
}

// serviceProblems says which services have no pods, or no port of them, and which pods do not
// have what they are to have apart.
func (all *objects) serviceProblems() (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, s := range all.services {
		pods := all.selected(&metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		if len(s.Spec.Selector) == 0 || len(pods) != 1 {
			say("Service/%s: selects no pods, or of several kinds", s.Name)
		}
		for _, p := range s.Spec.Ports {
			for _, name := range lackPort(pods, p.TargetPort) {
				say("Service/%s: port %q is none of %s", s.Name, p.TargetPort.String(), name)
			}
		}
	}
	for _, w := range all.pods {
		if w.set != nil {
			i := slices.IndexFunc(all.services, func(s corev1.Service) bool { return s.Name == w.set.Spec.ServiceName })
			if i < 0 || all.services[i].Spec.ClusterIP != corev1.ClusterIPNone || !all.services[i].Spec.PublishNotReadyAddresses {
				say("%s: its service %q is not there, has an address, or leaves out who is not ready", w.name, w.set.Spec.ServiceName)
			}
		}
		var apart []*metav1.LabelSelector
		for _, c := range w.pod.Spec.TopologySpreadConstraints {
			apart = append(apart, c.LabelSelector)
		}
		if a := w.pod.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
			for _, term := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
				apart = append(apart, term.LabelSelector)
			}
		}
		for _, s := range append(apart, w.selector) {
			if s == nil {
				continue
			}
			if pods := all.selected(s); len(pods) != 1 || pods[0].name != w.name {
				say("%s: a selector selects no pods, or others", w.name)
			}
		}
	}
	return list
}

// budgetProblems says which budgets hold for no pods, or let go of a shard.
func (all *objects) budgetProblems() (list []string) {
	covered := map[string]bool{}
	for _, b := range all.budgets {
		pods := all.selected(b.Spec.Selector)
		if len(pods) != 1 {
			list = append(list, fmt.Sprintf("PodDisruptionBudget/%s: selects no pods, or of several kinds", b.Name))
			continue
		}
		covered[pods[0].name] = true
		most := 0
		if b.Spec.MaxUnavailable != nil {
			most = b.Spec.MaxUnavailable.IntValue()
		}
		replicas := 0
		for _, c := range all.configs {
			_, _ = fmt.Sscan(c.Data["replicas"], &replicas) // none is 0
			if replicas > 0 {
				break
			}
		}
		if most < 1 || pods[0].set != nil && most >= replicas {
			list = append(list, fmt.Sprintf("PodDisruptionBudget/%s: lets as many go as there are replicas of a shard, or none", b.Name))
		}
		if n := pods[0].replicas; pods[0].set != nil && n != nil && int(*n) < replicas {
			list = append(list, fmt.Sprintf("%s: there are fewer nodes than replicas", pods[0].name))
		}
	}
	for _, w := range all.pods {
		if w.job == nil && !covered[w.name] {
			list = append(list, w.name+": has no budget")
		}
	}
	return list
}

// isOurs reports whether a selector is for pods of Tandem.
func isOurs(s *metav1.LabelSelector) bool {
	text := fmt.Sprint(s.MatchLabels, s.MatchExpressions)
	return strings.Contains(text, "app.kubernetes.io/component") || strings.Contains(text, "app.kubernetes.io/name")
}

// networkProblems says which policies are for nobody, and who is under none.
func (all *objects) networkProblems() (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	covered := map[string]bool{}
	for _, n := range all.networks {
		pods := all.selected(&n.Spec.PodSelector)
		if len(pods) == 0 {
			say("NetworkPolicy/%s: selects no pods", n.Name)
		}
		for _, w := range pods {
			covered[w.name] = true
		}
		ports := func(pods []workload, list []networkingv1.NetworkPolicyPort) {
			for _, p := range list {
				if p.Port.StrVal == "" {
					continue
				}
				for _, name := range lackPort(pods, *p.Port) {
					say("NetworkPolicy/%s: port %q is none of %s", n.Name, p.Port.StrVal, name)
				}
			}
		}
		for _, rule := range n.Spec.Ingress {
			if len(rule.From) == 0 || len(rule.Ports) == 0 {
				say("NetworkPolicy/%s: lets everybody in, or to all ports", n.Name)
			}
			for _, peer := range rule.From {
				if peer.PodSelector != nil && len(all.selected(peer.PodSelector)) == 0 {
					say("NetworkPolicy/%s: lets in from what selects none: a selector to which no pods belong", n.Name)
				}
			}
			ports(pods, rule.Ports)
		}
		named := false // whether names are looked up
		for _, rule := range n.Spec.Egress {
			for _, peer := range rule.To {
				if peer.PodSelector == nil {
					continue
				}
				if peer.NamespaceSelector != nil {
					named = named || !isOurs(peer.PodSelector) && slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntVal == 53 })
					continue
				}
				to := all.selected(peer.PodSelector)
				if len(to) == 0 {
					say("NetworkPolicy/%s: lets out to a selector to which no pods belong", n.Name)
				}
				ports(to, rule.Ports)
			}
		}
		if !named {
			say("NetworkPolicy/%s: DNS is not reached", n.Name)
		}
	}
	for _, w := range all.pods {
		if !covered[w.name] {
			say("%s: is under no network policy", w.name)
		}
	}
	return list
}

// mayWatch reports whether an account may see who the nodes are.
func (all *objects) mayWatch(account string) bool {
	for _, b := range all.bindings {
		for _, s := range b.Subjects {
			if s.Kind == "ServiceAccount" && s.Name == account && b.RoleRef.Kind == "Role" && len(all.roles[b.RoleRef.Name].Rules) > 0 {
				return true
			}
		}
	}
	return false
}

// rightsProblems says who has rights to the API that need none, or more than they need.
func (all *objects) rightsProblems() (list []string) {
	for _, name := range slices.Sorted(maps.Keys(all.roles)) {
		for _, r := range all.roles[name].Rules {
			if !slices.Equal(r.APIGroups, []string{"discovery.k8s.io"}) || !slices.Equal(r.Resources, []string{"endpointslices"}) || !slices.Equal(r.Verbs, []string{"list", "watch"}) {
				list = append(list, fmt.Sprintf("Role/%s: rights are more than list and watch of endpointslices, or others", name))
			}
		}
	}
	for _, b := range all.bindings {
		for _, s := range b.Subjects {
			if s.Kind != "ServiceAccount" || all.accounts[s.Name].Name == "" {
				list = append(list, fmt.Sprintf("RoleBinding/%s: there is no service account %q", b.Name, s.Name))
			}
			if s.Namespace != b.Namespace {
				list = append(list, fmt.Sprintf("RoleBinding/%s: service account %q is of the namespace %q", b.Name, s.Name, s.Namespace))
			}
		}
	}
	for _, w := range all.pods {
		asks := slices.ContainsFunc(w.pod.Spec.Containers, func(c corev1.Container) bool { return given(c, "--nodes") != "" })
		if auto := w.pod.Spec.AutomountServiceAccountToken; !asks && (auto == nil || *auto) {
			list = append(list, w.name+": has a token of the API, and asks it nothing")
		}
		if !asks && all.mayWatch(w.pod.Spec.ServiceAccountName) {
			list = append(list, w.name+": has rights, and asks nothing")
		}
	}
	for name, a := range all.accounts {
		if a.AutomountServiceAccountToken == nil || *a.AutomountServiceAccountToken {
			list = append(list, fmt.Sprintf("ServiceAccount/%s: gives its token to every pod", name))
		}
	}
	return list
}

// adapter is what prometheus-adapter is told.
type adapter struct {
	Rules []struct {
		SeriesQuery  string         `json:"seriesQuery"`
		Resources    map[string]any `json:"resources"`
		Name         struct{ Matches, As string }
		MetricsQuery string `json:"metricsQuery"`
	} `json:"rules"`
}

// scalerProblems says what is scaled that there is not, and by what that is not counted.
func (all *objects) scalerProblems(counted metrics) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	data, err := os.ReadFile(kubernetesFolder + "/components/autoscaling/adapter.yaml")
	if err != nil {
		return []string{err.Error()}
	}
	var a adapter
	if err := yaml.UnmarshalStrict(data, &a); err != nil {
		return []string{"adapter.yaml: " + err.Error()}
	}
	made := map[string]bool{}
	for _, r := range a.Rules {
		made[r.Name.As] = true
		for _, query := range []string{
			strings.NewReplacer(`,namespace!="",pod!=""`, "").Replace(r.SeriesQuery),
			strings.NewReplacer("<<.GroupBy>>", "instance", "<<.Series>>", strings.Trim(r.Name.Matches, "^$"), "<<.LabelMatchers>>", `instance="x"`).Replace(r.MetricsQuery),
		} {
			for _, p := range counted.problems(query) {
				say("adapter.yaml: %s: %s", query, p)
			}
		}
	}
	for _, h := range all.scalers {
		target := h.Spec.ScaleTargetRef
		i := slices.IndexFunc(all.pods, func(w workload) bool { return w.name == target.Kind+"/"+target.Name })
		if i < 0 {
			say("HorizontalPodAutoscaler/%s: scales %q, which there is not", h.Name, target.Name)
		} else if all.pods[i].replicas != nil {
			say("%s: is scaled, and has a number of replicas, which each apply sets anew", all.pods[i].name)
		}
		for _, m := range h.Spec.Metrics {
			if m.Pods != nil && !made[m.Pods.Metric.Name] {
				say("HorizontalPodAutoscaler/%s: metric %q is none of adapter.yaml", h.Name, m.Pods.Metric.Name)
			}
		}
	}
	return list
}
