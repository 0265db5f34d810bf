package smoke

// Family says which addresses a cluster has, as networking.ipFamily of kind's configuration.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
	Dual Family = "dual"
)

// Families are all of them.
var Families = []Family{IPv4, IPv6, Dual}

// OrDefault is the family, IPv4 where none is named.
func (f Family) OrDefault() Family {
	if f == "" {
		return IPv4
	}
	return f
}

// Loopback is the address of the host at which ports of nodes are published.
func (f Family) Loopback() string {
	if f == IPv6 {
		return "::1"
	}
	return "127.0.0.1"
}

// count is how many addresses a pod has.
func (f Family) count() int {
	if f == Dual {
		return 2
	}
	return 1
}
