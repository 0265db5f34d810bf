#!/usr/bin/env bash
# Builds one of the reference programs around the node into a directory, through the Go module proxy: build.sh NAME DIR.
# The Go build cache makes a second run cheap; the Makefile does not call it when nothing changed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 out=$(mkdir -p "$2" && cd "$2" && pwd)
export CGO_ENABLED=0 GOFLAGS=-trimpath
kube=k8s.io/component-base/version
kubeflags="-s -w -X $kube.gitVersion=v1.37.2 -X $kube.gitMajor=1 -X $kube.gitMinor=37 -X $kube.gitTreeState=clean"
say() { printf '%s build %s\n' "$(date +%T)" "$*"; }

case $name in
controlplane)
	say "control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubectl)"
	(cd "$here/controlplane" && go build -ldflags "$kubeflags" -o "$out/controlplane" .)
	for p in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do ln -sf controlplane "$out/$p"; done ;;
kubelet)
	say kubelet
	(cd "$here/controlplane" && go build -ldflags "$kubeflags" -o "$out/kubelet" k8s.io/kubernetes/cmd/kubelet) ;;
e2e.test)
	say "e2e.test and ginkgo"
	(cd "$here/conformance" && go test -c -ldflags "$kubeflags" -o "$out/e2e.test" k8s.io/kubernetes/test/e2e &&
		go build -ldflags '-s -w' -o "$out/ginkgo" github.com/onsi/ginkgo/v2/ginkgo) ;;
containerd)
	say "containerd, its runc shim and ctr"
	(cd "$here/peers/containerd" && for p in containerd containerd-shim-runc-v2 ctr; do
		go build -tags 'no_btrfs no_devmapper no_zfs no_cri_pinned_images' -ldflags '-s -w' -o "$out/" "github.com/containerd/containerd/v2/cmd/$p"; done) ;;
cni)
	say "upstream CNI plugins"
	mkdir -p "$out/cni"
	(cd "$here/peers/cni" && go build -ldflags '-s -w' -o "$out/cni/" $(go list tool)) ;;
coredns)
	say CoreDNS
	(cd "$here/peers/coredns" && go build -ldflags '-s -w -X github.com/coredns/coredns/coremain.GitCommit=v1.15.0' -o "$out/coredns" github.com/coredns/coredns) ;;
*)
	echo "build.sh: nothing is called $name" >&2; exit 2 ;;
esac
