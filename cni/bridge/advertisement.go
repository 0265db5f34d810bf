package bridge

// refuseAdvertisements keeps an interface of a pod from taking addresses and routes from whoever says that it
// is a router: any other pod on the bridge can (CVE-2020-10749), and a pod that has IPv4 alone would send to
// it first whatever has an IPv6 address. What the pod has, it has from IPAM. On a network without IPAM
// advertisements are the only way to an address, and stay.
func refuseAdvertisements(link string, a Attachment) error {
	if len(a.Addresses) == 0 {
		return nil
	}
	return set("net/ipv6/conf/"+link+"/accept_ra", "0")
}
