# The cluster round the node: reference programs, images, up and down. Included by the Makefile.
# A reference program is built again only when its module's go.mod, go.sum or build.sh changes; a warm make run builds nothing.

NODES ?= 1
REFERENCE_NODES ?= 0
# 1: pods, Services and machines have IPv6 addresses beside those of IPv4
DUAL_STACK ?= 0
# In how many zones the nodes are, one after the other
ZONES ?= 0
# How many of the NODES, the last ones, have systemd as PID 1 and as cgroup driver; make e2e wants one of each
# kind.
SYSTEMD ?= 0
# METRICS=1: with metrics-server, which kubectl top and autoscalers ask. Its RSS is 65 MB, 49 of them the program itself.
METRICS ?= 0
# SNAPSHOTS=1: with the snapshot controller, and the classes of snapshots, groups and attributes.
SNAPSHOTS ?= 0
NODE ?= trivet
CRI ?= trivet
CNI ?= trivet
CSI ?= trivet
# What each node has of its own instead of the host's: a disk, a second one for images and containers, their
# inodes, memory, the space of its volumes.
DISK ?=
IMAGE_DISK ?=
INODES ?=
MEMORY ?=
VOLUMES ?=
# Debian 12's crun is too old for containerd 2.4.
OCI ?= $(if $(filter containerd,$(CRI)),runc,crun)

ref := .trivet/bin
cluster_sources := $(shell find e2e/cluster e2e/cmd e2e/demo e2e/images e2e/lan e2e/leaks e2e/machine e2e/pki e2e/registry e2e/skew e2e/specs internal -name '*.go' -not -name '*_test.go' 2>/dev/null) e2e/specs/smoke.txt e2e/specs/conformance.txt e2e/specs/exceptions/exceptions.txt $(wildcard e2e/cluster/controlplane/*.yaml e2e/specs/external/*.yaml)
image_sources := $(shell find e2e/images internal/debian internal/ociimage internal/tarfile -name '*.go' -not -name '*_test.go' 2>/dev/null)

# Sets of images (e2e/images/catalog.go), an OCI layout each. The cluster's registry serves those that are there, also one that is built
# while it is up. A target needs base and what else it names.
images = .trivet/images/$(1)/index.json
base_images := $(call images,base)
metrics_images := $(call images,metrics)
suite_images := $(call images,suite)
storage_images := $(call images,storage)
critest_images := $(call images,critest)
extension_images := $(call images,extensions)

$(ref)/controlplane: e2e/controlplane/go.mod e2e/controlplane/go.sum e2e/controlplane/main.go e2e/build.sh
	@e2e/build.sh controlplane $(ref)
$(ref)/kubelet: e2e/controlplane/go.mod e2e/controlplane/go.sum e2e/build.sh
	@e2e/build.sh kubelet $(ref)
$(ref)/containerd: e2e/peers/containerd/go.mod e2e/peers/containerd/go.sum e2e/build.sh
	@e2e/build.sh containerd $(ref)
$(ref)/cni/bridge: e2e/peers/cni/go.mod e2e/peers/cni/go.sum e2e/build.sh
	@e2e/build.sh cni $(ref)
$(ref)/callers/cnitool: e2e/peers/callers/go.mod e2e/peers/callers/go.sum e2e/build.sh
	@e2e/build.sh callers $(ref)
# What is built of these says build.sh alone, which changes for other reasons.
$(ref)/nerdctl:
	@e2e/build.sh nerdctl $(ref)
$(ref)/crio/crio:
	@e2e/build.sh crio $(ref)
$(ref)/local-path-provisioner: e2e/peers/local-path/go.mod e2e/peers/local-path/go.sum e2e/build.sh
	@e2e/build.sh local-path $(ref)
$(ref)/coredns: e2e/peers/coredns/go.mod e2e/peers/coredns/go.sum e2e/build.sh
	@e2e/build.sh coredns $(ref)
$(ref)/snapshot-controller: e2e/peers/sidecars/go.mod e2e/peers/sidecars/go.sum e2e/build.sh
	@e2e/build.sh snapshot-controller $(ref)
$(ref)/csi-provisioner: e2e/peers/sidecars/go.mod e2e/peers/sidecars/go.sum e2e/build.sh
	@e2e/build.sh sidecars $(ref)
$(ref)/e2e.test: e2e/conformance/go.mod e2e/conformance/go.sum e2e/conformance/imports.go e2e/build.sh
	@e2e/build.sh e2e.test $(ref)

$(ref)/kubeadm: e2e/controlplane/go.mod e2e/controlplane/go.sum e2e/build.sh
	@e2e/build.sh kubeadm $(ref)
$(ref)/kind: e2e/peers/kind/go.mod e2e/peers/kind/go.sum e2e/build.sh
	@e2e/build.sh kind $(ref)

$(ref)/critest.test: e2e/critest/go.mod e2e/critest/go.sum e2e/critest/imports.go e2e/build.sh
	@e2e/build.sh critest.test $(ref)

bin/trivet-cluster bin/trivet-images bin/trivet-specs &: $(cluster_sources) go.mod
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./e2e/cmd/trivet-cluster ./e2e/cmd/trivet-images ./e2e/cmd/trivet-specs

# Not made again with every change of the program that makes them: Debian's packages would be fetched each time.
.trivet/images/%/index.json: $(image_sources) | bin/trivet-images $(ref)/coredns
	bin/trivet-images build --set $* --out $(@D) --programs $(ref)
	@touch $@
$(suite_images): e2e/conformance/go.mod e2e/controlplane/go.mod
$(storage_images): e2e/peers/sidecars/go.mod
$(metrics_images): e2e/peers/metrics-server/go.mod
$(extension_images): $(shell find e2e/operator -name '*.go' -not -name '*_test.go') e2e/operator/go.mod \
	e2e/peers/etcd-3.6/go.mod e2e/peers/etcd-3.7/go.mod

# What a run needs depends on who sits in the seats.
references := $(ref)/controlplane $(ref)/coredns $(base_images) $(if $(filter 1,$(METRICS)),$(metrics_images))
ifneq ($(filter kubelet,$(NODE)),)
references += $(ref)/kubelet
endif
ifneq ($(filter containerd,$(CRI)),)
references += $(ref)/containerd
endif
ifneq ($(filter upstream,$(CNI)),)
references += $(ref)/cni/bridge
endif
ifneq ($(filter local-path,$(CSI)),)
references += $(ref)/local-path-provisioner
endif
ifneq ($(REFERENCE_NODES),0)
references += $(ref)/kubelet $(ref)/containerd $(ref)/cni/bridge
endif

CLUSTER = bin/trivet-cluster
SEATS = --nodes=$(NODES) --systemd-nodes=$(SYSTEMD) --reference-nodes=$(REFERENCE_NODES) \
	$(if $(filter 1,$(DUAL_STACK)),--dual-stack) --zones=$(ZONES) \
	$(if $(filter 1,$(METRICS)),--metrics-server) $(if $(filter 1,$(SNAPSHOTS)),--snapshots) $(if $(TRACES),--traces=$(TRACES)) \
	--agent=$(NODE) --cri=$(CRI) --cni=$(CNI) --csi=$(CSI) --oci=$(OCI) \
	--node-disk=$(DISK) --image-disk=$(IMAGE_DISK) --disk-inodes=$(INODES) --node-memory=$(MEMORY) \
	--node-volumes=$(VOLUMES)
# The kernel takes apart what processes leave (mounts, loop devices) after they have ended.
WAIT = --wait=30s
# The tests have a cluster of their own: one that is up (make run) is neither tested nor taken down.
E2E = .trivet/e2e

.PHONY: install
install: ## install what the cluster needs of the host (apt; says what and why)
	@e2e/install.sh

all_references := $(ref)/controlplane $(ref)/kubelet $(ref)/containerd $(ref)/cni/bridge $(ref)/coredns \
	$(ref)/local-path-provisioner

.PHONY: references
references: $(all_references) ## build the reference programs (control plane, kubelet, containerd, ...)

.PHONY: images
images: $(base_images) $(metrics_images) $(suite_images) $(storage_images) $(critest_images) $(extension_images) ## build all images of the offline clusters

.PHONY: up
up: install build bin/trivet-cluster bin/trivet-images $(references) ## bring a cluster up: NODES=1 NODE=trivet|kubelet CRI=trivet|containerd CNI=trivet|upstream CSI=trivet|local-path OCI=crun|runc SYSTEMD=0 METRICS=0
	@$(CLUSTER) up $(SEATS)

.PHONY: run
run: up ## up, then show the demo on it; the cluster stays up (METRICS=1: kubectl top, too)
	@$(CLUSTER) demo
	@echo; echo 'The cluster is up. Use it by any kubectl:'
	@echo '  export KUBECONFIG=$(CURDIR)/.trivet/kubeconfig'
	@echo '  $(CURDIR)/$(ref)/kubectl get nodes,pods -A'
	@echo 'make down takes it down and leaves nothing.'

.PHONY: down
down: bin/trivet-cluster ## take the cluster down; nothing is left of it
	@$(CLUSTER) down
	@$(CLUSTER) leaks $(WAIT)

# Each program of ours beside the peers it may meet. CELLS=all, rotating, or programs (kubelet,upstream);
# RESULTS=docs/data keeps the results there and writes docs/seats.md.
CELLS ?= all
SEAT_PODS ?= 15
seats_need := $(all_references) $(base_images) $(metrics_images) bin/trivet-cluster bin/trivet-seats bin/scenario.test
bin/scenario.test: $(cluster_sources) $(wildcard e2e/scenario/*.go) go.mod
	@mkdir -p bin
	go test -c -o $@ ./e2e/scenario
bin/trivet-seats: $(cluster_sources) $(wildcard e2e/bench/*.go e2e/seats/*.go) go.mod
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./e2e/cmd/trivet-seats

.PHONY: seats
seats: install build $(seats_need) ## pods measured, scenarios and the demo with every mix of trivet and reference programs in a node's seats, one cluster after the other
	@rm -f .trivet/seats/*.log; \
	bin/trivet-seats --cells=$(CELLS) --pods=$(SEAT_PODS) --metrics-server $(if $(RESULTS),--data=$(RESULTS)/seats.jsonl) || \
		{ verdict=$$?; for log in .trivet/seats/*.log; do awk -f e2e/failures.awk $$log; done; exit $$verdict; }

.PHONY: seats-page
seats-page: bin/trivet-seats ## write docs/seats.md from docs/data/seats.jsonl
	@bin/trivet-seats page --data=docs/data/seats.jsonl

# A test of e2e/scenario each, on a cluster of its own.
LIVE = .trivet/live
.PHONY: seats-live
seats-live: install build $(seats_need) ## agent, CNI plugin, provisioner exchanged and daemons upgraded under 30 pods; CRI servers on a drained node
	@verdict=0; { $(CLUSTER) down --dir=$(LIVE) && $(CLUSTER) up --dir=$(LIVE) $(SEATS) && \
		( cd e2e/scenario && TRIVET_E2E=$(CURDIR)/$(LIVE) TRIVET_MUST_RUN=1 ../../bin/scenario.test -test.v \
			-test.timeout=20m -test.run='Exchanged|Upgraded' ); } || verdict=$$?; \
	[ $$verdict = 0 ] || { rm -rf .trivet/failed; for m in $(LIVE)/machines/*/; do \
		mkdir -p .trivet/failed/$$(basename $$m) && cp $$m/log/* .trivet/failed/$$(basename $$m)/; done; }; \
	$(CLUSTER) down --dir=$(LIVE) && $(CLUSTER) leaks --dir=$(LIVE) $(WAIT) && exit $$verdict

# Clusters of other minor versions of Kubernetes than the one that trivet is made with. Each version is a build
# of a quarter of an hour on 2 cores, once. It may not be on the Go module proxy as a whole, as 1.38's beta is not.
SKEW ?= 1.35 1.36 1.37
SKEW_AGENTS ?= trivet,kubelet
skew := .trivet/skew
# The version that trivet is made with is that of the other clusters.
skew_dir = $(if $(filter 1.37,$(1)),$(ref),$(skew)/$(1))
skew_dirs = $(foreach v,$(SKEW),$(call skew_dir,$(v)))
$(skew)/%/controlplane: e2e/controlplane/skew/v%.mod e2e/controlplane/skew/v%.sum e2e/controlplane/main.go
	@e2e/build.sh controlplane $(@D) $*
$(skew)/%/kubelet: e2e/controlplane/skew/v%.mod e2e/controlplane/skew/v%.sum
	@e2e/build.sh kubelet $(@D) $*
$(skew)/%/kubeadm: e2e/controlplane/skew/v%.mod e2e/controlplane/skew/v%.sum
	@e2e/build.sh kubeadm $(@D) $*
# The rest round the node is the same for all of them.
$(skew)/%/coredns: $(ref)/coredns
	@mkdir -p $(@D)
	@ln -f $< $@
.PRECIOUS: $(skew)/%/controlplane $(skew)/%/kubelet $(skew)/%/kubeadm $(skew)/%/coredns

bin/trivet-skew: $(cluster_sources) go.mod
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./e2e/cmd/trivet-skew

.PHONY: skew
skew: install build bin/trivet-cluster bin/trivet-images bin/trivet-skew $(base_images) $(foreach d,$(skew_dirs),$(addprefix $d/,coredns controlplane $(if $(findstring kubelet,$(SKEW_AGENTS)),kubelet))) ## the demo with control planes and kubelets of other minor versions: SKEW='1.35 1.36 1.37' SKEW_AGENTS=trivet,kubelet (writes the table of docs/install.md)
	@bin/trivet-skew --dir=$(skew)/cluster --oci=$(OCI) --agents=$(SKEW_AGENTS) --data=docs/data/skew.jsonl $(skew_dirs); verdict=$$?; \
		TRIVET_WRITE_DOCS=1 go test -count=1 ./e2e/skew && exit $$verdict

.PHONY: critest
critest: up $(ref)/critest.test $(critest_images) ## run the published critest against trivet-cri, over crun and over runc
	@$(CLUSTER) critest --oci=crun
	@$(CLUSTER) critest --oci=runc

.PHONY: smoke
smoke: up bin/trivet-specs $(ref)/e2e.test $(suite_images) ## run the smoke set of the published e2e.test on the cluster (best with NODES=2)
	@bin/trivet-specs --procs=4

# SET=conformance (710 specs), node, storage, external (trivet-csi's own), network, policy, smoke, all, or a file with one name a line; SHARD=2/5 is the second of five parts of
# it. What has a result runs no more, also after a cut, unless the commit, the programs or the seats are others; FRESH=1 begins again.
# RESULTS=docs/data/conformance keeps the results of a finished run as data, and writes docs/conformance.md.
SET ?= conformance
SHARD ?=
FRESH ?=
# Specs wait more than they compute: 0.8 s of processor time each, so many of them can run on two cores.
PROCS ?= 16
# Failed ones run once more in the end, alone, unless there are more.
AGAIN ?= 40
CONFORMANCE = .trivet/conformance
conformance_images := $(suite_images) $(if $(filter storage all,$(SET)),$(storage_images))
conformance: NODES = 2
# Specs of storage call crictl on the nodes, which is built with kind.
# What the specs of storage claim of the default class.
conformance: VOLUMES = $(if $(filter storage external all,$(SET)),40Gi)
# What the specs of trivet-csi's snapshots, groups and attributes need in the cluster.
conformance: SNAPSHOTS = $(if $(filter external,$(SET)),1,0)
.PHONY: conformance
conformance: install build bin/trivet-cluster bin/trivet-images bin/trivet-specs $(references) $(conformance_images) $(if $(filter external,$(SET)),$(ref)/snapshot-controller) $(if $(filter storage all,$(SET)),$(ref)/kind) $(ref)/e2e.test ## run SET=conformance|node|storage|external|network|policy|all|FILE of the published e2e.test on two nodes of its own; a run that was cut off goes on (NODE=kubelet and other seats, SHARD=2/5, FRESH=1)
	@bin/trivet-specs --dir=$(CONFORMANCE) --set=$(SET) --shard=$(SHARD) --procs=$(PROCS) --again=$(AGAIN) \
		--results=$(CONFORMANCE)/results-$(NODE)-$(CRI)-$(CNI)-$(OCI).jsonl $(if $(filter 1,$(FRESH)),--fresh) --data=$(RESULTS) -- $(SEATS)

.PHONY: conformance-storage
conformance-storage: ## the specs of e2e.test for drivers, of trivet-csi: make conformance SET=external
	@$(MAKE) --no-print-directory conformance SET=external

.PHONY: conformance-names
conformance-names: bin/trivet-specs $(ref)/e2e.test ## write the names of the conformance set, after a new version of the suite
	@bin/trivet-specs names

.PHONY: conformance-page
conformance-page: bin/trivet-specs $(ref)/e2e.test ## write docs/conformance.md from docs/data/conformance
	@bin/trivet-specs page

# It begins with what a killed run has left. Whatever happens, also Ctrl-C: what failed is said once more at the end and the daemons' logs
# are saved, the cluster is taken down, and the host is looked over.
define scenarios
@set -o pipefail; trap : INT TERM; verdict=0; rm -rf .trivet/failed .trivet/scenario.log; \
	{ $(CLUSTER) down --dir=$(E2E) && $(CLUSTER) up --dir=$(E2E) $(SEATS) && \
		TRIVET_E2E=$(CURDIR)/$(E2E) TRIVET_MUST_RUN=1 go test -count=1 -timeout=40m -v $(1) ./e2e/scenario | tee .trivet/scenario.log; } || verdict=$$?; \
	if [ $$verdict != 0 ]; then awk -f e2e/failures.awk .trivet/scenario.log | tail -n 120; \
		for m in $(E2E)/machines/*/; do mkdir -p .trivet/failed/$$(basename $$m) && cp $$m/log/* .trivet/failed/$$(basename $$m)/; done; \
		echo 'the logs of all daemons are in .trivet/failed'; fi; \
	$(CLUSTER) down --dir=$(E2E) && $(CLUSTER) leaks --dir=$(E2E) $(WAIT) && exit $$verdict
endef

# The tests that want three nodes and the images of the set extensions.
extension_tests = ^Test(OperatorOfEtcd|InjectedProxy|WebhooksAreAsked)

.PHONY: e2e
e2e: SYSTEMD = 1
e2e: DISK = 4Gi
e2e: install build bin/trivet-cluster bin/trivet-images $(all_references) $(ref)/kubeadm $(base_images) $(metrics_images) $(suite_images) $(critest_images) bin/trivet-specs $(ref)/e2e.test $(ref)/critest.test $(ref)/snapshot-controller ## the demo, kills, cuts, a reboot, critest and the smoke specs on a real cluster (NODES=2), each with a leak check; then it is taken down
	$(call scenarios,-skip='$(extension_tests)')

.PHONY: e2e-claims
e2e-claims: install build $(ref)/controlplane $(ref)/snapshot-controller $(ref)/csi-provisioner ## trivet-csi between a real API server and controller-manager, without nodes: upstream's sidecars in the place of its own provisioner, a populator, a volume that moves
	TRIVET_CLAIMS=1 TRIVET_MUST_RUN=1 go test -count=1 -timeout=20m ./e2e/claims

.PHONY: e2e-operator
e2e-operator: NODES = 3
e2e-operator: E2E = .trivet/e2e-operator
e2e-operator: install build bin/trivet-cluster bin/trivet-images $(references) $(extension_images) ## an operator that runs etcd with volumes of three nodes through kills, a reboot, a new version and a restore, and sidecars that a webhook injects, on a real cluster; then it is taken down
	$(call scenarios,-run='$(extension_tests)')
