# Tests in virtual machines with Debian's kernels: cgroup v2, systemd as PID 1, every privilege. Included by
# the Makefile.
#
# VM_SHARDS are parts of the tests, each of which boots a machine of its own (guest.sh): kernel, quota,
# sanity, encryption, users, rules, containers, runtime, demo, cluster, eviction, critest, and specs-1-4 to
# specs-4-4, quarters of the smoke set of e2e.test. KEEP=1 keeps the results in docs/data/vm and writes the tables of
# docs/cgroup-v2.md.

VM_DEBIANS ?= 12 13
VM_SHARDS ?= kernel quota sanity encryption users rules containers runtime demo cluster
VM = .trivet/vm
KEEP ?=
# What is tested by packages. e2e/machine and cri/container run tests of others.
VM_PACKAGES := internal/cgroup internal/mount internal/projectquota internal/diskusage node/memoryalarm \
	node/podcgroup node/usage csi/throttle csi/quotadir csi/driver csi/fscrypt csi/nodetest csi/cmd/trivet-csi \
	cni/bridge cni/hostnat cni/netd cni/netd/doctor cni/netd/enforcer cni/cmd/trivet-netd cni/plugin \
	cni/policy/filter cri/cgroupdriver cri/container cri/ociruntime cri/sandbox cri/stats \
	internal/namespace node/csivolume/mapped e2e/machine e2e/scenario
vm_references = $(references) bin/trivet-specs \
	$(if $(findstring specs,$(VM_SHARDS)),$(ref)/e2e.test $(suite_images)) \
	$(if $(findstring critest,$(VM_SHARDS)),$(ref)/critest.test $(critest_images))

bin/trivet-vm: $(shell find e2e/vm e2e/cmd/trivet-vm e2e/specs -name '*.go' -not -name '*_test.go') go.mod
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./e2e/cmd/trivet-vm

.PHONY: vm
vm: install build bin/trivet-cluster bin/trivet-images bin/trivet-vm $(vm_references) ## tests on cgroup v2 in virtual machines, emulated: VM_DEBIANS='12 13' VM_SHARDS='kernel quota runtime cluster eviction specs-1-4' KEEP=1
	@e2e/vm/vm.sh disk $(VM) $(VM_PACKAGES)
	@$(MAKE) --no-print-directory vm-run

.PHONY: vm-run
vm-run: bin/trivet-vm ## the same with the disk as it was made last
	@verdict=0; for debian in $(VM_DEBIANS); do for shard in $(VM_SHARDS); do \
		e2e/vm/vm.sh boot $(VM) $$debian $$shard && \
		bin/trivet-vm --debian=$$debian --shard=$$shard $(if $(KEEP),--keep) $(VM)/results/$$debian/$$shard || \
		verdict=1; done; done; exit $$verdict

.PHONY: vm-page
vm-page: bin/trivet-vm ## write the tables of docs/cgroup-v2.md from docs/data/vm
	@bin/trivet-vm page
