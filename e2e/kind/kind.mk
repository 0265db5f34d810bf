# A kind cluster with trivet in it (docs/kind.md). Included by the Makefile.

# A published image of kind's (kindest/node:v1.37.0), on the Docker that is there; empty: an image and a Docker that are made here.
KIND_IMAGE ?=
# trivet: nodes that have trivet in all seats from the start, in place of the parts one after the other.
KIND_NODES ?= kind
# How many of the parts are put into the cluster, from the first; empty: all.
KIND_PARTS ?=
# The archive of Debian for the nodes' root file system; empty: that of the host's apt.
DEBIAN_MIRROR ?=

kubeadm_images := $(call images,kubeadm)
snapshot_images := $(call images,snapshots)
kind_references := $(ref)/kind $(ref)/controlplane $(ref)/snapshot-controller $(snapshot_images)

# Nodes that are made here need more, and those with trivet from the start no containerd.
kind_node_references := $(kind_references) $(ref)/kubeadm $(ref)/kubelet $(kubeadm_images)
ifeq ($(KIND_IMAGE),)
kind_references := $(kind_node_references) $(if $(filter kind,$(KIND_NODES)),$(ref)/containerd $(ref)/cni/bridge)
endif
kind_sources := $(shell find e2e/demo e2e/kind e2e/leaks e2e/loopdev e2e/machine internal -name '*.go' -not -name '*_test.go' 2>/dev/null) $(wildcard e2e/kind/nodeimage/files/*) $(wildcard e2e/cmd/trivet-kind/*.go)

KIND = bin/trivet-kind

$(kubeadm_images): $(ref)/controlplane
$(snapshot_images): e2e/peers/sidecars/go.mod

bin/trivet-kind: $(kind_sources) go.mod
	@e2e/progress.sh trivet-kind -ldflags '$(LDFLAGS)' -o bin/ -- ./e2e/cmd/trivet-kind

# The images of deploy are made again when their programs are others, and not when these are only newer.
.PHONY: kind-images
kind-images: build bin/trivet-images $(base_images)
	@mkdir -p .trivet/kind
	@sha256sum $(addprefix bin/,$(notdir $(PROGRAMS))) deploy/cri/cri.toml deploy/*/*.service $(image_sources) >.trivet/kind/programs.new
	@cmp -s .trivet/kind/programs.new .trivet/kind/programs.sum && test -e .trivet/images/trivet/index.json || { \
		bin/trivet-images build --set trivet --programs bin && bin/trivet-images build --set broken --programs bin && mv .trivet/kind/programs.new .trivet/kind/programs.sum; }

.PHONY: kind
kind: $(if $(KIND_IMAGE),,install) bin/trivet-kind kind-images $(kind_references) ## bring a kind cluster up and put trivet into it part by part, with the demo after each (KIND_NODES=trivet: nodes that have it from the start; KIND_IMAGE=kindest/node:TAG: on your Docker)
	@$(KIND) up --nodes=$(KIND_NODES) --image=$(KIND_IMAGE) --mirror=$(DEBIAN_MIRROR)
	@$(KIND) install $(if $(KIND_PARTS),--parts=$(KIND_PARTS))
	@echo; echo 'The cluster is up. Commands that see it:'
	@echo '  $(KIND) run kubectl get nodes,pods -A'
	@echo '  $(KIND) run docker ps'
	@echo 'make kind-undo takes trivet out of it again, make kind-down takes it down and leaves nothing.'

.PHONY: kind-undo
kind-undo: bin/trivet-kind ## take trivet out of the kind cluster again, part by part in reverse, with the demo after each
	@$(KIND) remove

.PHONY: kind-down
kind-down: bin/trivet-kind ## take the kind cluster down; nothing is left of it
	@$(KIND) down

# The tests have clusters of their own, one at a time: one that is up (make kind) is neither tested nor taken down.
KIND_TEST = $(KIND) $(1) --dir=.trivet/kind-test
# Whatever happens, also Ctrl-C: kind exports the logs if something failed, the cluster is taken down, and the host
# is looked over.
kind_tested = trap stopped=1 INT TERM; verdict=0; $(call KIND_TEST,down) && { $(1) } || verdict=$$?; \
	if [ $$verdict != 0 ]; then rm -rf .trivet/failed/kind; mkdir -p .trivet/failed; \
		$(call KIND_TEST,run) kind export logs --name=trivet .trivet/failed/kind; echo 'the logs are in .trivet/failed/kind'; fi; \
	$(call KIND_TEST,down) && test $$verdict = 0

.PHONY: kind-test
kind-test: install bin/trivet-kind kind-images $(kind_node_references) ## kubeadm init and join on kind nodes with trivet in all seats, the demo, limits, kubelet on the control plane and back; then nothing is left
	@$(call kind_tested,$(call KIND_TEST,up) --nodes=trivet --mirror=$(DEBIAN_MIRROR) && $(call KIND_TEST,install) --once && $(call KIND_TEST,swap);)

.PHONY: kind-course
kind-course: install bin/trivet-kind kind-images $(kind_references) ## make kind and kind-undo on a cluster of their own, the worker restarted with each part; then nothing is left
	@$(call kind_tested,$(call KIND_TEST,up) --mirror=$(DEBIAN_MIRROR) && $(call KIND_TEST,install) --reboots && $(call KIND_TEST,remove);)

.PHONY: kind-broken
kind-broken: install bin/trivet-kind kind-images $(kind_references) ## parts that do not work, put on a kind node that takes them back by itself each time; then nothing is left
	@$(call kind_tested,$(call KIND_TEST,up) --mirror=$(DEBIAN_MIRROR) && $(call KIND_TEST,install) --parts=2 --once && $(call KIND_TEST,broken);)

# The minor version before, whose programs make skew has too: a build of a quarter of an hour on 2 cores, once.
earlier := $(skew)/1.36
earlier_images := $(call images,kubeadm-1.36)
$(earlier_images): $(earlier)/controlplane $(image_sources) | bin/trivet-images
	bin/trivet-images build --set kubeadm-1.36 --out $(@D) --programs $(earlier)
	@touch $@

.PHONY: kind-upgrade
kind-upgrade: install bin/trivet-kind kind-images $(kind_node_references) $(addprefix $(earlier)/,kubeadm kubelet) $(earlier_images) ## kubeadm upgrade of a cluster of Kubernetes 1.36 to 1.37, control plane and worker, on kind nodes with trivet in all seats; then nothing is left
	@$(call kind_tested,$(call KIND_TEST,up) --nodes=trivet --kubernetes=$(earlier) --mirror=$(DEBIAN_MIRROR) && $(call KIND_TEST,install) --once && $(call KIND_TEST,upgrade);)

FAMILIES ?= ipv4 dual ipv6
.PHONY: kind-smoke
kind-smoke: install bin/trivet-kind kind-images $(kind_node_references) ## what users of kind do with a cluster, as a table, with trivet in all seats: FAMILIES=ipv4 dual ipv6, a cluster each
	@rm -f .trivet/kind-smoke.txt; failed= stopped=; for family in $(FAMILIES); do test -z "$$stopped" || break; \
		{ $(call kind_tested,$(call KIND_TEST,up) --nodes=trivet --family=$$family --mirror=$(DEBIAN_MIRROR) && \
			$(call KIND_TEST,install) --once && $(call KIND_TEST,smoke) --reboot=before --table=.trivet/kind-smoke.txt && \
			$(call KIND_TEST,reboot) && $(call KIND_TEST,smoke) --reboot=after --table=.trivet/kind-smoke.txt;); } || failed="$$failed $$family"; done; \
	cat .trivet/kind-smoke.txt; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }
