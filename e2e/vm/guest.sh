#!/bin/bash
# What a virtual machine runs, as a service of its systemd: the shard that its kernel command line names. Each
# command is a line of the file steps, the output of tests is in files of their own, and all of it goes back
# on the second disk.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TRIVET_MUST_RUN=1 TRIVET_TESTS=/trivet/tests
# Debian's kernels have VLANs on bridges, and this machine's may not.
export TRIVET_VLANS=1
# An emulated machine is slower than one by the times that tests allow.
export TRIVET_PATIENCE=5
results=/tmp/results
cluster=/trivet/bin/trivet-cluster

argument() { sed -n "s/.*trivet\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }

# prepare mounts and loads what systemd's units do on a whole Debian.
prepare() {
	mount -t tmpfs tmp /tmp && mkdir -p "$results"
	ip link set lo up
	for m in overlay bridge veth 8021q tun loop btrfs xfs quota_v2 nf_tables br_netfilter nf_conntrack_netlink; do
		modprobe "$m"
	done
	{
		echo "commit=$(cat /trivet/commit)"
		echo "kernel=Linux $(uname -r)"
		echo "systemd=$(systemctl --version | head -n 1)"
		echo "runtime=$(crun --version | head -n 1)"
		echo "machine=$(nproc) processors, $(argument machine), $(($(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' \
			/proc/meminfo) >> 20)) GiB"
	} | tee "$results/subject"
	cat /sys/fs/cgroup/cgroup.controllers
}

# step runs a command and notes how it ended.
step() {
	local name=$1 began=$SECONDS code
	shift
	echo "== $name"
	"$@"
	code=$?
	echo "$code $((SECONDS - began)) $name" >>"$results/steps"
	return $code
}

# tests runs tests of a package, with the flags of test programs. What they say is in a file, and a program
# that ended badly is a step: what it says may not tell.
tests() {
	local package=$1 log=$results/${1//\//.}.log began=$SECONDS code
	shift
	echo "== $package"
	(cd "/trivet/$package" && "/trivet/tests/${package##*/}.test" -test.v -test.timeout=60m "$@" 2>&1) |
		tee -a "$log" | grep -E '^ *--- |^panic|^FAIL|^PASS|_test.go:'
	code=${PIPESTATUS[0]}
	[[ $code = 0 ]] || echo "$code $((SECONDS - began)) tests of $package" >>"$results/steps"
	return "$code"
}

# with_cluster brings a cluster of one node up, with further flags, and takes it down after a function.
with_cluster() {
	local what=$1 code=0
	shift
	step 'cluster up' "$cluster" up --nodes=1 "$@" || { "$cluster" status; return 1; }
	"$what" || code=1
	for machine in /trivet/.trivet/machines/*/; do
		mkdir -p "$results/daemons" && cp -r "$machine/log" "$results/daemons/$(basename "$machine")"
	done
	step 'cluster down' "$cluster" down
	step 'nothing is left of the cluster' "$cluster" leaks --wait=60s
	return $code
}

# scenarios runs scenarios on the cluster that is up.
scenarios() {
	TRIVET_E2E=/trivet/.trivet tests e2e/scenario -test.run "^($(IFS='|'; echo "$*"))\$"
}

# swap_area makes an area that tests may have the machine swap to, as large as one likes: it is a loop device
# over a file with holes. Tests that swap are skipped without it, so that it is a step.
swap_area() { step 'an area to swap to' make_swap_area; }

make_swap_area() {
	local area
	truncate -s 8G /var/swap && area=$(losetup -f --show /var/swap) && mkswap "$area" || return 1
	export TRIVET_SWAP=$area
}

# What the packages do with control groups, memory and quotas, by files and by systemd, and with VLANs.
shard_kernel() {
	for p in internal/cgroup internal/mount node/memoryalarm node/usage internal/projectquota \
		internal/diskusage csi/throttle cni/bridge; do
		tests "$p"
	done
	tests cni/plugin -test.run VLAN

	# On the virtual machine's own systemd.
	TRIVET_SYSTEMD=1 tests node/podcgroup
	TRIVET_SYSTEMD=1 tests cri/cgroupdriver
}

# Volumes with project quotas of ext4 and xfs, which not every kernel has: the backend, and the driver with it.
shard_quota() {
	tests internal/projectquota
	tests csi/quotadir
	tests csi/cmd/trivet-csi -test.run Quota
}

# Volumes with project quotas as others see them: csi-sanity, and what making one takes beside other backends.
shard_sanity() {
	tests csi/driver -test.run TestSanityWithProjectQuotas
	tests csi/nodetest -test.run LostDirectory -test.bench CreateAndDelete -test.benchtime 30x
}

# Pods with user namespaces, whose groups, volumes and network belong to their own root.
shard_users() {
	tests internal/namespace
	tests cri/ociruntime
	tests cri/sandbox -test.run 'Users|PodWith|Ping'
	tests node/csivolume/mapped
}

# The rules and links of the network, which differ with the version of nf_tables: what a kernel gives back of
# a rule must be what was asked for, or the doctor finds it wrong and the daemon repairs it for ever.
shard_rules() {
	tests cni/cmd/trivet-netd -test.run 'Doctor|Polic|Tunnel|Reach'
	tests cni/hostnat
	tests cni/netd
	tests cni/netd/doctor
	tests cni/netd/enforcer
	tests cni/policy/filter
	tests cni/plugin
}

# On a systemd in a machine made of namespaces, as nodes of the test cluster are.
shard_runtime() { tests e2e/machine -test.run Systemd; }

# Containers of trivet-cri, what confines them, and what is counted of them.
shard_containers() {
	swap_area
	tests cri/container -test.run 'Slowed|OOM|Stalls|Swaps'
	tests cri/container -test.run 'Updat|Memory|Shares|Limit'
	tests cri/container -test.run Profile
	tests cri/stats
}

# Encrypted volumes, which need what a kernel may have or not.
shard_encryption() {
	tests csi/fscrypt
	tests csi/nodetest -test.run 'Encrypted|DeletedVolume|KeyGoes'
}

shard_demo() { with_cluster the_demo --systemd-nodes=1; }

the_demo() {
	step 'the demo' "$cluster" demo
	step 'the demo leaves nothing on the node' "$cluster" leaks --wait=60s
}

shard_cluster() { with_cluster on_cluster --systemd-nodes=1; }

on_cluster() {
	swap_area
	scenarios TestPodLimitsUnderSystemd \
		TestPodThatTakesMoreThanItsOwnLimitIsOOMKilledUnderSystemd \
		TestBurstablePodsSwapTheirShare \
		TestMemoryIsThrottledAndProtected \
		TestAnOOMKillEndsAContainerOrOneProcess \
		TestStallsAreShown
}

shard_eviction() { with_cluster on_small_node --systemd-nodes=1 --node-disk=4Gi; }

on_small_node() {
	scenarios TestFullMemoryEvictsByRequestsAndPriorities \
		TestNodeUnderMemoryPressureTakesPodsWithRequests \
		TestFullDiskEvictsByRequestsPrioritiesAndUse \
		TestManyFilesEvictWhoMadeThem \
		TestPodsThatTakeMoreThanTheirLimitOfLocalStorageAreEvicted
}

shard_critest() { with_cluster on_cri --systemd-nodes=1; }

on_cri() {
	local code=0
	for runtime in crun runc; do
		step "critest with $runtime" "$cluster" critest --oci="$runtime" || code=1
		cp "/trivet/.trivet/critest/$runtime/e2e.log" "$results/critest-$runtime.txt"
	done
	return $code
}

# shard_specs runs a part of the smoke set, such as 1/4.
shard_specs() {
	step "smoke specs $1" /trivet/bin/trivet-specs --dir=/trivet/.trivet --set=smoke --shard="$1" --procs=3 \
		--again=5 --results="$results/specs.jsonl" -- --nodes=1 --systemd-nodes=1
}

# hand_back writes what there is so far: a machine that is ended from outside has not run for nothing.
hand_back() { flock /dev/vdb tar -C "$results" -cf /dev/vdb . && sync; }

trap 'kill "$keeper"; hand_back; echo o >/proc/sysrq-trigger' EXIT
prepare
while sleep 30; do hand_back 2>/dev/null; done &
keeper=$!
shard=$(argument shard)
cd /trivet || exit
case $shard in
specs-*-*) IFS=- read -r _ part of <<<"$shard" && shard_specs "$part/$of" ;;
*) "shard_$shard" ;;
esac
echo "== $shard ended with code $?" | tee "$results/ended"
