// Command kube runs a command beside a real Kubernetes: kube-apiserver, etcd,
// kube-controller-manager, kube-scheduler, and kwok, which pretends to be machines. Nothing
// runs in pods: kwok says that they are ready, and how they ended.
//
//	kube -bin FOLDER -stages FOLDER -- COMMAND [ARG...]
//
// The command finds in its environment:
//
//   - KUBECONFIG, of somebody who may do everything; access is by RBAC for all others.
//   - TANDEM_KUBE, a folder with the files url, ca.crt and token of the same, and control, a URL:
//     POST /stop kills the API server, POST /start starts it again, at the same address.
//
// A pod of a job ends with the exit code that its annotation tandem.test/exit-INDEX-FAILURES has, or
// 0: INDEX is that of an Indexed Job, or none, and FAILURES how often that index has failed. A pod that
// is deleted ends some time later, and not before its annotation tandem.test/hold is gone.
//
// It is a module of its own, whose go.mod pins the programs: .ci/run kube builds them.
package main
