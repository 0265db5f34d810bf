package usage

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/netdev"
)

// maxInterfaces bounds the interfaces of one network namespace that are shown.
const maxInterfaces = 128

// ignored are prefixes of interfaces that are not shown, as by cAdvisor: loopback, and the host's ends of
// those of containers, which are shown with the containers.
var ignored = []string{"lo", "veth", "docker", "nerdctl"}

// network returns the interfaces in the network namespace of a process. Namespaces that several pods share,
// such as the host's, are read once in a pass.
func (r *reader) network(pid string) []Interface {
	space, err := os.Readlink(r.proc(pid + "/ns/net"))
	if err != nil {
		space = pid
	}

	if known, ok := r.networks[space]; ok {
		return known
	}

	b, err := r.read(r.proc(pid), "net/dev")
	if err != nil {
		return nil
	}

	out := netdev.Parse(b, shown, maxInterfaces)
	r.networks[space] = out
	return out
}

func shown(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range ignored {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

// Device names a block device by its number: /dev/sda, or MAJOR:MINOR if the kernel has no name for it.
func (s *Snapshot) Device(major, minor uint32) string {
	key := fmt.Sprintf("%d:%d", major, minor)
	if name, known := s.devices[key]; known {
		return name
	}
	return key
}

// nameDevices finds the names of the devices that the groups have used.
func (s *Snapshot) nameDevices(root string) {
	s.devices = map[string]string{}
	s.each(func(g *Group, _ time.Time) {
		for _, d := range g.IO {
			key := fmt.Sprintf("%d:%d", d.Major, d.Minor)
			if _, known := s.devices[key]; known {
				continue
			}

			// A link such as ../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda.
			s.devices[key] = key
			if link, err := os.Readlink(root + "/sys/dev/block/" + key); err == nil {
				s.devices[key] = "/dev/" + link[strings.LastIndexByte(link, '/')+1:]
			}
		}
	})
}
