#!/usr/bin/env bash
# Builds one of the reference programs around the node into a directory, through the Go module proxy:
# build.sh NAME DIR. The Go build cache makes a second run cheap; the Makefile does not call it when nothing
# changed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 out=$(mkdir -p "$2" && cd "$2" && pwd)
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
kube=k8s.io/component-base/version
kubeflags="-s -w -X $kube.gitVersion=v1.37.2 -X $kube.gitMajor=1 -X $kube.gitMinor=37 -X $kube.gitTreeState=clean"
say() { printf '%s build %s\n' "$(date +%T)" "$*"; }

# An interrupted build may have left something.
fresh=$out/.fresh-$name
rm -rf "$fresh" && mkdir -p "$fresh"
target=$name

# report says every half minute how many lines a log has, until it gets SIGTERM.
report() {
	local pause
	trap 'kill "$pause" 2>/dev/null; exit 0' TERM
	while :; do
		sleep 30 &
		pause=$!
		wait "$pause"
		say "$name: $(wc -l <"$1") packages are compiled"
	done
}

# compile is go build. Kubernetes takes many minutes when nothing of it is in the cache: every half minute it says
# how many packages are compiled.
compile() {
	local log=$fresh/.log ticker status=0
	: >"$log"
	report "$log" &
	ticker=$!
	go build -v "$@" 2>"$log" || status=$?
	kill "$ticker"
	wait "$ticker" 2>/dev/null || true

	# What is not the name of a package is an error.
	[ $status = 0 ] || grep -vE '^[[:alnum:]._~/-]+$' "$log" >&2
	rm "$log"
	return $status
}

case $name in
controlplane)
	say "control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubectl)"
	(cd "$here/controlplane" && compile -ldflags "$kubeflags" -o "$fresh/controlplane" .)
	for p in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do
		ln -s controlplane "$fresh/$p"
	done ;;
kubelet)
	say kubelet
	(cd "$here/controlplane" &&
		compile -ldflags "$kubeflags" -o "$fresh/kubelet" k8s.io/kubernetes/cmd/kubelet) ;;
e2e.test)
	say "e2e.test and ginkgo"
	# First all that the test is made of, by the command that counts. Without -vet=off go vets every package of it,
	# which takes as long as compiling them.
	(cd "$here/conformance" && compile k8s.io/kubernetes/test/e2e &&
		go test -c -vet=off -ldflags "$kubeflags" -o "$fresh/e2e.test" k8s.io/kubernetes/test/e2e &&
		compile -ldflags '-s -w' -o "$fresh/ginkgo" github.com/onsi/ginkgo/v2/ginkgo) ;;
critest.test)
	say "critest and the ginkgo that runs it"
	(cd "$here/critest" &&
		go test -c -vet=off -ldflags '-s -w' -o "$fresh/critest.test" sigs.k8s.io/cri-tools/cmd/critest &&
		compile -ldflags '-s -w' -o "$fresh/critest-ginkgo" github.com/onsi/ginkgo/v2/ginkgo) ;;
containerd)
	say "containerd, its runc shim and ctr"
	without='no_btrfs no_devmapper no_zfs no_cri_pinned_images'
	(cd "$here/peers/containerd" && for p in containerd containerd-shim-runc-v2 ctr; do
		compile -tags "$without" -ldflags '-s -w' -o "$fresh/" "github.com/containerd/containerd/v2/cmd/$p"
	done) ;;
cni)
	say "upstream CNI plugins"
	target=cni/bridge
	mkdir "$fresh/cni"
	(cd "$here/peers/cni" && compile -ldflags '-s -w' -o "$fresh/cni/" $(go list tool)) ;;
coredns)
	say CoreDNS
	coreflags='-s -w -X github.com/coredns/coredns/coremain.GitCommit=v1.15.0'
	(cd "$here/peers/coredns" && compile -ldflags "$coreflags" -o "$fresh/coredns" github.com/coredns/coredns) ;;
*)
	echo "build.sh: nothing is called $name" >&2; exit 2 ;;
esac

# The file that make looks at comes last, so that an interruption leaves out nothing that belongs to it.
cd "$fresh"
mkdir -p "$out/$(dirname "$target")"
for f in $(find . ! -type d ! -path "./$target") "./$target"; do mv -f "$f" "$out/$f"; done
rm -rf "$fresh"
