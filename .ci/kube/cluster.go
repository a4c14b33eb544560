package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// token is that of who may do everything. The API listens on loopback for the time of a test.
	token = "tandem-test"
	// patience is how long a program may take to be ready on a busy machine.
	patience = 10 * time.Minute
	// tail is how much of each log is shown after a failure.
	tail = 2000
)

// cluster is the programs that run.
type cluster struct {
	bin, dir string
	url      string
	control  *http.Server

	mu       sync.Mutex
	programs map[string]*program // by name; without those that were killed
	api      []string            // the arguments of the API server
}

// program is one that was started.
type program struct {
	process *os.Process
	ended   chan struct{} // closed once it has ended, by itself or not
}

// start starts all programs. What it returns is to be stopped, after an error, too.
func start(ctx context.Context, bin, stages, dir string) (*cluster, error) {
	c := &cluster{bin: bin, dir: dir, programs: map[string]*program{}}
	var ports [3]int
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return c, err
		}
	}
	etcd := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	peer := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	c.url = fmt.Sprintf("https://127.0.0.1:%d", ports[2])
	if err := c.write(); err != nil {
		return c, err
	}
	if err := c.launch("etcd", "--data-dir", c.path("etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer); err != nil {
		return c, err
	}
	c.api = []string{
		"--etcd-servers", etcd, "--secure-port", fmt.Sprint(ports[2]),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--cert-dir", dir,
		"--service-account-issuer", c.url, "--service-account-key-file", c.path("sa.pub"), "--service-account-signing-key-file", c.path("sa.key"),
		"--token-auth-file", c.path("tokens.csv"), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.96.0.0/24", "--endpoint-reconciler-type=none",
		// Machines are ready before anybody has looked at them.
		"--disable-admission-plugins=TaintNodesByCondition",
	}
	if err := c.startAPI(ctx); err != nil {
		return c, err
	}
	ca, err := os.ReadFile(c.path("apiserver.crt"))
	if err != nil {
		return c, err
	}
	if err := os.WriteFile(c.path("ca.crt"), ca, 0o600); err != nil {
		return c, err
	}
	kubeconfig := c.path("kubeconfig")
	if err := c.launch("kube-controller-manager", "--kubeconfig", kubeconfig, "--leader-elect=false", "--secure-port=0",
		"--controllers=statefulset-controller,replicaset-controller,deployment-controller,job-controller,cronjob-controller,horizontal-pod-autoscaler-controller,"+
			"endpointslice-controller,endpointslice-mirroring-controller,disruption-controller,"+
			"serviceaccount-controller,root-ca-certificate-publisher-controller,namespace-controller,garbage-collector-controller,"+
			"ephemeral-volume-controller,persistentvolumeclaim-protection-controller,persistentvolume-protection-controller,ttl-after-finished-controller",
		"--root-ca-file", c.path("ca.crt"), "--kube-api-qps=100", "--kube-api-burst=200"); err != nil {
		return c, err
	}
	if err := c.launch("kube-scheduler", "--kubeconfig", kubeconfig, "--leader-elect=false", "--secure-port=0"); err != nil {
		return c, err
	}
	config := []string{"kwok", "--kubeconfig", kubeconfig, "--manage-all-nodes=true"}
	for _, stage := range []string{
		"node/fast/node-initialize.yaml", "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml", "pod/fast/pod-ready.yaml",
		"volume/fast/pvc-provision.yaml", "volume/fast/pv-bind.yaml", "volume/fast/pv-delete.yaml", "volume/fast/pvc-delete.yaml",
	} {
		config = append(config, "--config", filepath.Join(stages, stage))
	}
	if err := os.WriteFile(c.path("stages.yaml"), []byte(ends), 0o600); err != nil {
		return c, err
	}
	if err := c.launch(config[0], append(config[1:], "--config", c.path("stages.yaml"))...); err != nil {
		return c, err
	}
	if err := c.furnish(ctx, filepath.Join(stages, "volume/fast/storage-class.yaml")); err != nil {
		return c, err
	}
	return c, c.listen()
}

// machines is how many machines there are, in zones a, b and c.
const machines = 9

// furnish makes machines, waits for them, and makes volumes for whoever claims some.
func (c *cluster) furnish(ctx context.Context, storage string) error {
	var b strings.Builder
	for i := range machines {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Node
metadata:
  name: machine-%d
  labels: {kubernetes.io/hostname: machine-%d, topology.kubernetes.io/zone: %c}
`, i, i, "abc"[i%3])
	}
	if err := os.WriteFile(c.path("machines.yaml"), []byte(b.String()), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "-f", c.path("machines.yaml"), "-f", storage},
		// kwok says so. Until it does, it ends if the API goes.
		{"wait", "--for=condition=Ready", "nodes", "--all", "--timeout", patience.String()},
	} {
		cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "kubectl"), append([]string{"--kubeconfig", c.path("kubeconfig")}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("machines: %w: %s", err, out)
		}
	}
	return nil
}

// ends are how pods end: those of jobs by themselves, and others some time after they were told to,
// as those do that drain. One that was told ends before it is deleted, as the kubelet has it: a job
// with a policy of failures waits for that.
const ends = `apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-end}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
      - {key: .status.phase, operator: In, values: [Running]}
      - {key: '.metadata.ownerReferences.[].kind', operator: In, values: [Job]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      {{ $annotations := or .metadata.annotations dict }}
      {{ $i := or ( index $annotations "batch.kubernetes.io/job-completion-index" ) "none" }}
      {{ $n := or ( index $annotations "batch.kubernetes.io/job-index-failure-count" ) "0" }}
      {{ $code := or ( index $annotations ( printf "tandem.test/exit-%s-%s" $i $n ) ) "0" }}
      containerStatuses:
      {{ range .spec.containers }}
      - image: {{ .image | Quote }}
        name: {{ .name | Quote }}
        ready: false
        restartCount: 0
        started: false
        state:
          terminated:
            exitCode: {{ $code }}
            finishedAt: {{ $now | Quote }}
            reason: {{ if eq $code "0" }}Completed{{ else }}Error{{ end }}
            startedAt: {{ $now | Quote }}
      {{ end }}
      phase: {{ if eq $code "0" }}Succeeded{{ else }}Failed{{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-told}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: Exists}
      - {key: .status.phase, operator: In, values: [Pending, Running]}
      - {key: '.metadata.annotations["tandem.test/hold"]', operator: DoesNotExist}
  delay: {durationMilliseconds: 1500}
  next:
    statusTemplate: |
      {{ $now := Now }}
      containerStatuses:
      {{ range .spec.containers }}
      - image: {{ .image | Quote }}
        name: {{ .name | Quote }}
        ready: false
        restartCount: 0
        started: false
        state:
          terminated:
            exitCode: 143
            finishedAt: {{ $now | Quote }}
            reason: Error
            startedAt: {{ $now | Quote }}
      {{ end }}
      phase: Failed
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-delete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: Exists}
      - {key: .status.phase, operator: In, values: [Succeeded, Failed]}
  next: {delete: true}
`

// write writes what the programs are told by files.
func (c *cluster) write() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	var errs []error
	for name, text := range map[string]string{
		"sa.key":     string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"sa.pub":     string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"tokens.csv": token + `,admin,1,"system:masters"` + "\n",
		"token":      token,
		"url":        c.url,
		"kubeconfig": fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: admin, user: {token: %q}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
`, c.url, c.path("apiserver.crt"), token),
	} {
		errs = append(errs, os.WriteFile(c.path(name), []byte(text), 0o600))
	}
	return errors.Join(errs...)
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

// launch starts a program whose log is a file.
func (c *cluster) launch(name string, args ...string) error {
	log, err := os.OpenFile(c.path(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the program has its own
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	// It ends with this process, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &program{cmd.Process, make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // its log says why it has ended
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.programs[name] = p
	return nil
}

// kill ends a program at once.
func (c *cluster) kill(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.programs[name]
	if p == nil {
		return fmt.Errorf("%s does not run", name)
	}
	delete(c.programs, name)
	err := p.process.Kill()
	<-p.ended
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// startAPI starts the API server, and waits until it is ready.
func (c *cluster) startAPI(ctx context.Context) error {
	if err := c.launch("kube-apiserver", c.api...); err != nil {
		return err
	}
	c.mu.Lock()
	ended := c.programs["kube-apiserver"].ended
	c.mu.Unlock()
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/readyz", nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := client.Do(r)
		if err == nil {
			_ = answer.Body.Close() // its code tells
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("status %d", answer.StatusCode)
		}
		select {
		case <-ended:
			return errors.New("the API server has ended by itself")
		default:
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("the API server is not ready: %w", err)
		}
	}
}

// listen takes orders to kill and start the API server.
func (c *cluster) listen() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	do := func(what func(*http.Request) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := what(r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}
	mux.HandleFunc("POST /stop", do(func(*http.Request) error { return c.kill("kube-apiserver") }))
	mux.HandleFunc("POST /start", do(func(r *http.Request) error { return c.startAPI(r.Context()) }))
	c.control = &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	go func() { _ = c.control.Serve(l) }() // until it is closed
	return os.WriteFile(c.path("control"), []byte("http://"+l.Addr().String()), 0o600)
}

// stop ends all programs.
func (c *cluster) stop() error {
	var errs []error
	if c.control != nil {
		errs = append(errs, c.control.Close())
	}
	for _, name := range []string{"kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"} {
		c.mu.Lock()
		runs := c.programs[name] != nil
		c.mu.Unlock()
		if runs {
			errs = append(errs, c.kill(name))
		}
	}
	return errors.Join(errs...)
}

// logs is the end of each log.
func (c *cluster) logs() string {
	var b strings.Builder
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"} {
		text, err := os.ReadFile(c.path(name + ".log"))
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "--- %s\n%s\n", name, text[max(0, len(text)-tail):])
	}
	return b.String()
}

// freePort returns a port of loopback that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
