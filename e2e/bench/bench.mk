# Side by side with the real peers, in one run each: medians and ratios, never a timed test. docs/benchmarks.md keeps the figures.

# RESULTS=e2e/bench/results keeps the figures as data, for docs/benchmarks.md and the pictures: make pictures
# draws them again.
RESULTS ?=
figures = $(if $(RESULTS),--json=$(RESULTS)/$(1).jsonl)
spans = $(if $(RESULTS),--spans=docs/data/spans-pod.json)

.PHONY: bench
bench: bench-pods bench-cni bench-csi bench-pull ## pods, network, volumes and image pulls measured beside the real peers, in one run each

bin/trivet-bench bin/cni-bench bin/csi-bench bin/pull-bench bin/evict-bench &: $(wildcard e2e/bench/*.go e2e/bench/*/*.go e2e/cmd/trivet-bench/*.go e2e/picture/*.go) go.mod
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/trivet-bench ./e2e/cmd/trivet-bench
	go build -ldflags '$(LDFLAGS)' -o bin/cni-bench ./e2e/bench/cni
	go build -ldflags '$(LDFLAGS)' -o bin/csi-bench ./e2e/bench/csi
	go build -ldflags '$(LDFLAGS)' -o bin/pull-bench ./e2e/bench/pull
	go build -ldflags '$(LDFLAGS)' -o bin/evict-bench ./e2e/bench/evict

.PHONY: bench-pods
bench-pods: bin/trivet-bench ## pods Ready and gone, one by one and 50 at once, and memory: a trivet node beside kubelet + containerd + runc
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1
	@bin/trivet-bench $(call figures,pods) $(spans) || { $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down

.PHONY: bench-cni
bench-cni: build bin/cni-bench $(ref)/cni/bridge ## ADD and DEL of trivet-cni beside upstream's plugins
	@bin/cni-bench --plugin=bin/trivet-cni --upstream=$(ref)/cni $(call figures,cni)

.PHONY: bench-csi
bench-csi: build bin/csi-bench ## what trivet-csi's calls take
	@bin/csi-bench $(call figures,csi)

.PHONY: bench-pull
bench-pull: build bin/pull-bench bin/trivet-images $(ref)/containerd ## image pulls of trivet-cri beside containerd's
	@bin/pull-bench $(call figures,pull)

# Once with images on the disk of everything else, once with a disk of theirs.
.PHONY: bench-evict
bench-evict: bin/evict-bench ## what a trivet node evicts beside kubelet + containerd + runc: in which order, after how long, what the API shows
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1 DISK=1Gi
	@bin/evict-bench $(call figures,evict) || { $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1 DISK=1Gi IMAGE_DISK=1Gi
	@bin/evict-bench $(call figures,evict-split) || { $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down
