# Side by side with the real peers, in one run each: medians and ratios, never a timed test. docs/benchmarks.md keeps the figures.

# RESULTS=e2e/bench/results keeps the figures as data, for docs/benchmarks.md and the pictures: make pictures
# draws them again.
RESULTS ?=
figures = $(if $(RESULTS),--json=$(RESULTS)/$(1).jsonl)
spans = $(if $(RESULTS),--spans=docs/data/spans-pod.json)

.PHONY: bench
bench: bench-pods bench-cni bench-csi bench-pull bench-scrape ## pods, network, volumes, image pulls and scrapes measured beside the real peers, in one run each

bin/trivet-bench bin/cni-bench bin/cni-floor bin/csi-bench bin/pull-bench bin/stats-bench bin/scrape-bench bin/evict-bench bin/resize-bench bin/archive-bench &: $(wildcard e2e/bench/*.go e2e/bench/*/*.go e2e/bench/*/*/*.go e2e/cmd/trivet-bench/*.go e2e/picture/*.go) go.mod
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/trivet-bench ./e2e/cmd/trivet-bench
	go build -ldflags '$(LDFLAGS)' -o bin/cni-bench ./e2e/bench/cni
	go build -ldflags '$(LDFLAGS)' -o bin/cni-floor ./e2e/bench/cni/floor
	go build -ldflags '$(LDFLAGS)' -o bin/csi-bench ./e2e/bench/csi
	go build -ldflags '$(LDFLAGS)' -o bin/pull-bench ./e2e/bench/pull
	go build -ldflags '$(LDFLAGS)' -o bin/stats-bench ./e2e/bench/stats
	go build -ldflags '$(LDFLAGS)' -o bin/scrape-bench ./e2e/bench/scrape
	go build -ldflags '$(LDFLAGS)' -o bin/evict-bench ./e2e/bench/evict
	go build -ldflags '$(LDFLAGS)' -o bin/resize-bench ./e2e/bench/resize
	go build -ldflags '$(LDFLAGS)' -o bin/archive-bench ./e2e/bench/archive

.PHONY: bench-pods
bench-pods: bin/trivet-bench $(suite_images) ## pods Ready and gone, one by one and 50 at once, and memory: a trivet node beside kubelet + containerd + runc
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1
	@bin/trivet-bench $(call figures,pods) $(spans) || { $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down

.PHONY: trace
trace: ## one pod's start as a waterfall of spans, on a trivet node and on one of kubelet + containerd: trace.svg
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/trivet-trace ./e2e/cmd/trivet-trace
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1 TRACES=10.99.0.1:4317
	@bin/trivet-trace $(if $(RESULTS),--data=docs/data/trace-pod.json --svg=docs/img/trace-pod.svg) || \
		{ $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down

.PHONY: bench-cni
bench-cni: build bin/cni-bench bin/cni-floor $(ref)/cni/bridge ## ADD and DEL of trivet-cni beside upstream's plugins and bare netlink
	@bin/cni-bench --plugin=bin/trivet-cni --upstream=$(ref)/cni $(call figures,cni)

.PHONY: cni-upstream
cni-upstream: build ## upstream's own tests of its CNI plugins, run against trivet-cni: how many of each pass
	@bin/trivet-cni install --dir .trivet/cni-upstream/bin
	@go run ./e2e/cmd/trivet-cni-suites --plugins=.trivet/cni-upstream/bin --failures $(SUITES)

.PHONY: cni-swap
cni-swap: build $(ref)/cni/bridge ## pods that upstream's CNI plugins have added, deleted by trivet-cni, and the other way round: what is left
	@bin/trivet-cni install --dir .trivet/cni-upstream/bin
	@go run ./e2e/cmd/trivet-cni-suites --plugins=.trivet/cni-upstream/bin --swap=$(ref)/cni

.PHONY: cni-compare
cni-compare: build $(ref)/cni/bridge ## what trivet-cni and upstream's CNI plugins make of a corpus of configurations, compared, and chains of plugins of both
	@bin/trivet-cni install --dir .trivet/cni-upstream/bin
	@go run ./e2e/cmd/trivet-cni-suites --plugins=.trivet/cni-upstream/bin --compare=$(ref)/cni

# CALLERS=podman,nerdctl are some of them.
CALLERS ?= cnitool,multus,podman,nerdctl,containerd,crio
.PHONY: cni-callers
cni-callers: build $(base_images) $(ref)/callers/cnitool $(ref)/containerd $(ref)/kind $(ref)/nerdctl $(ref)/crio/crio ## cnitool, multus, podman, nerdctl, containerd and CRI-O make networks, containers and host ports with trivet-cni under the names of upstream's plugins: CALLERS=podman,nerdctl
	@go build -ldflags '$(LDFLAGS)' -o bin/ ./e2e/cmd/trivet-callers
	@TRIVET_MUST_RUN=1 bin/trivet-callers --callers=$(CALLERS)

.PHONY: bench-csi
bench-csi: build bin/csi-bench ## what trivet-csi's calls take, and input and output of its volumes beside the bare disk (PEER=SOCKET: calls beside another driver's; RESULTS=e2e/bench/results: writes the figures of docs/csi.md)
	@e2e/install.sh --bench
	@bin/csi-bench $(if $(PEER),--peer=$(PEER)) $(call figures,csi)
	@$(if $(RESULTS),TRIVET_WRITE_DOCS=1 go test -count=1 ./e2e/bench/csi/report)

.PHONY: bench-pull
bench-pull: build bin/pull-bench bin/trivet-images $(ref)/containerd ## image pulls of trivet-cri beside containerd's
	@bin/pull-bench $(call figures,pull)

.PHONY: bench-archive
bench-archive: build bin/archive-bench $(ref)/containerd ## imports of image archives by trivet-cri beside ctr's, and archives passed between the two
	@bin/archive-bench $(call figures,archive)

.PHONY: bench-stats
bench-stats: build bin/stats-bench bin/trivet-images $(base_images) $(ref)/containerd $(ref)/cni/bridge ## statistics and metrics of 100 pods by CRI: trivet-cri beside containerd
	@bin/stats-bench $(call figures,stats)

.PHONY: bench-scrape
bench-scrape: bin/scrape-bench ## what scrapes take at 110 pods, and what they say, beside kubelet + containerd
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1
	@bin/scrape-bench $(call figures,scrape) || { $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down

.PHONY: bench-resize
bench-resize: bin/resize-bench ## pods resized in place, one and 100 at once, beside kubelet + containerd + runc: time and processor
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1
	@bin/resize-bench $(call figures,resize) || { $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down

# Once with images on the disk of everything else, once with a disk of theirs.
.PHONY: bench-evict
bench-evict: bin/evict-bench $(suite_images) ## what a trivet node evicts beside kubelet + containerd + runc: in which order, after how long, what the API shows
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1 DISK=1Gi
	@bin/evict-bench $(call figures,evict) || { $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down
	@$(MAKE) --no-print-directory up NODES=1 REFERENCE_NODES=1 DISK=1Gi IMAGE_DISK=1Gi
	@bin/evict-bench $(call figures,evict-split) || { $(CLUSTER) down; exit 1; }
	@$(MAKE) --no-print-directory down
