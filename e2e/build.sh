#!/usr/bin/env bash
# Builds one of the reference programs around the node into a directory, through the Go module proxy:
# build.sh NAME DIR [MINOR]. The Go build cache makes a second run cheap; the Makefile does not call it when
# nothing changed. controlplane, kubelet and kubeadm can be of another minor version of Kubernetes, such as
# 1.36, for which e2e/controlplane/skew has a go.mod.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 out=$(mkdir -p "$2" && cd "$2" && pwd) minor=${3:-}
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
kube=k8s.io/component-base/version
version=v1.37.2
if [ -n "$minor" ]; then
	GOFLAGS+=" -modfile=skew/v$minor.mod"
	version=$(cd "$here/controlplane" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
fi
kubeminor=${version#v1.} kubeminor=${kubeminor%%.*}
kubeflags="-s -w -X $kube.gitVersion=$version -X $kube.gitMajor=1 -X $kube.gitMinor=$kubeminor"
kubeflags+=" -X $kube.gitTreeState=clean"

# An interrupted build may have left something.
fresh=$out/.fresh-$name
rm -rf "$fresh" && mkdir -p "$fresh"
target=$name

# compile is go build, which says every half minute how far it is: TITLE FLAGS... -- PACKAGES...
compile() { "$here/progress.sh" "$@"; }

# imports are the packages that a test of the module in this directory is made of: what it pins, but programs.
imports() { go list -e -tags imports -f '{{join .Imports "\n"}}' . | grep -v '/ginkgo$'; }

# copy copies a module, to be built as its own go.mod and go.sum say: MODULE@VERSION DIRECTORY
copy() {
	local dir
	dir=$(cd / && go mod download -json "$1" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
	cp -r "$dir" "$2" && chmod -R u+w "$2"
}

case $name in
controlplane)
	title="control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubectl)"
	(cd "$here/controlplane" && compile "$title" -ldflags "$kubeflags" -o "$fresh/controlplane" -- .)
	for p in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do
		ln -s controlplane "$fresh/$p"
	done ;;
kubelet)
	(cd "$here/controlplane" &&
		compile kubelet -ldflags "$kubeflags" -o "$fresh/kubelet" -- k8s.io/kubernetes/cmd/kubelet) ;;
kubeadm)
	(cd "$here/controlplane" &&
		compile kubeadm -ldflags "$kubeflags" -o "$fresh/kubeadm" -- k8s.io/kubernetes/cmd/kubeadm) ;;
kind)
	(cd "$here/peers/kind" &&
		compile "kind and crictl" -ldflags '-s -w' -o "$fresh/" -- \
			sigs.k8s.io/kind sigs.k8s.io/cri-tools/cmd/crictl) ;;
e2e.test)
	# First all that the test is made of, by the command that counts. Without -vet=off go vets every package of
	# it, which takes as long as compiling them.
	(cd "$here/conformance" && compile e2e.test -- $(imports) &&
		go test -c -vet=off -ldflags "$kubeflags" -o "$fresh/e2e.test" k8s.io/kubernetes/test/e2e &&
		compile ginkgo -ldflags '-s -w' -o "$fresh/ginkgo" -- github.com/onsi/ginkgo/v2/ginkgo) ;;
critest.test)
	(cd "$here/critest" && compile critest -- $(imports) &&
		go test -c -vet=off -ldflags '-s -w' -o "$fresh/critest.test" sigs.k8s.io/cri-tools/cmd/critest &&
		compile "the ginkgo of critest" -ldflags '-s -w' -o "$fresh/critest-ginkgo" -- \
			github.com/onsi/ginkgo/v2/ginkgo) ;;
containerd)
	without='no_btrfs no_devmapper no_zfs no_cri_pinned_images'
	(cd "$here/peers/containerd" && for p in containerd containerd-shim-runc-v2 ctr; do
		compile "$p" -tags "$without" -ldflags '-s -w' -o "$fresh/" -- "github.com/containerd/containerd/v2/cmd/$p"
	done) ;;
cni)
	target=cni/bridge
	mkdir "$fresh/cni"
	(cd "$here/peers/cni" && compile "upstream CNI plugins" -ldflags '-s -w' -o "$fresh/cni/" -- tool) ;;
callers)
	target=callers/cnitool
	mkdir "$fresh/callers"
	(cd "$here/peers/callers" && compile "cnitool and multus" -ldflags '-s -w' -o "$fresh/callers/" -- tool) ;;
nerdctl)
	# A file of its tests, which is part of the program, is of a module that is not on the proxy.
	nerdctl=github.com/containerd/nerdctl/v2 release=v2.2.1
	copy "$nerdctl@$release" "$fresh/source"
	(cd "$fresh/source" && rm cmd/nerdctl/helpers/testing_linux.go &&
		mkdir -p mod/tigron && echo "module github.com/containerd/nerdctl/mod/tigron" >mod/tigron/go.mod &&
		compile nerdctl -ldflags "-s -w -X $nerdctl/pkg/version.Version=$release" -o "$fresh/" -- ./cmd/nerdctl)
	rm -rf "$fresh/source" ;;
crio)
	target=crio/crio
	mkdir "$fresh/crio"
	copy github.com/cri-o/cri-o@v1.34.0 "$fresh/source"
	without='containers_image_openpgp exclude_graphdriver_btrfs'
	(cd "$fresh/source" && cc -std=c99 -Os -static -o "$fresh/crio/pinns" pinns/src/*.c &&
		cp contrib/cni/11-crio-ipv4-bridge.conflist "$fresh/crio/" &&
		compile CRI-O -tags "$without" -ldflags '-s -w' -o "$fresh/crio/" -- ./cmd/crio)
	rm -rf "$fresh/source" ;;
local-path)
	target=local-path-provisioner
	(cd "$here/peers/local-path" && compile local-path-provisioner -ldflags '-s -w' -o "$fresh/$target" -- \
		github.com/rancher/local-path-provisioner) ;;
snapshot-controller)
	# With the kinds that it is about: they are not built in.
	snapshotter=github.com/kubernetes-csi/external-snapshotter
	(cd "$here/peers/sidecars" &&
		compile "snapshot controller" -ldflags '-s -w' -o "$fresh/" -- $snapshotter/v8/cmd/snapshot-controller &&
		crds=$(go list -m -f '{{.Dir}}' $snapshotter/client/v8)/config/crd &&
		for f in "$crds"/*snapshot.storage.k8s.io_*.yaml; do cat "$f"; echo ---; done >"$fresh/snapshot-kinds.yaml") ;;
sidecars)
	target=csi-provisioner
	csi=github.com/kubernetes-csi
	(cd "$here/peers/sidecars" && compile "sidecars of CSI" -ldflags '-s -w' -o "$fresh/" -- \
		$csi/external-provisioner/v6/cmd/csi-provisioner $csi/external-resizer/v2/cmd/csi-resizer \
		$csi/external-snapshotter/v8/cmd/csi-snapshotter) ;;
coredns)
	coreflags='-s -w -X github.com/coredns/coredns/coremain.GitCommit=v1.15.0'
	(cd "$here/peers/coredns" && compile CoreDNS -ldflags "$coreflags" -o "$fresh/coredns" -- \
		github.com/coredns/coredns) ;;
*)
	echo "build.sh: nothing is called $name" >&2; exit 2 ;;
esac

# The file that make looks at comes last, so that an interruption leaves out nothing that belongs to it.
cd "$fresh"
mkdir -p "$out/$(dirname "$target")"
for f in $(find . ! -type d ! -path "./$target") "./$target"; do mv -f "$f" "$out/$f"; done
rm -rf "$fresh"
