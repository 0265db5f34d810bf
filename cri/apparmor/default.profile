# What a container may do that asks for nothing else. All that is not denied is left to the other guards:
# capabilities, seccomp, namespaces and masked paths. It includes no other file, so that it can be loaded
# wherever there is a parser.
profile trivet-default flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  capability,
  umount,

  # From the node's runtime and kubelet, and among the container's own processes.
  signal (receive) peer=unconfined,
  signal (receive) peer=crun,
  signal (receive) peer=runc,
  signal (send, receive) peer=trivet-default,
  ptrace (trace, read, tracedby, readby) peer=trivet-default,

  deny mount,

  # The kernel's switches; /proc/PID stays writable.
  deny /proc/* w,
  deny /proc/sys/** w,
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi,tty}/** w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/kmem rwklx,
  deny /proc/mem rwklx,

  # All of /sys but /sys/fs/cgroup, which a container with a cgroup namespace may be given.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
