package call

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Print answers the call with a result, in the CNI version of the configuration.
func (c *Call) Print(r *types100.Result) error {
	versioned, err := r.GetAsVersion(c.CNIVersion)
	if err != nil {
		return err
	}

	current, ok := versioned.(*types100.Result)
	if !ok {
		// A version before 1.0.
		return versioned.PrintTo(c.Out)
	}

	text, err := json.MarshalIndent(objectOf(current), "", "    ")
	if err != nil {
		return err
	}
	_, err = c.Out.Write(text)
	return err
}

// object is a JSON object. encoding/json writes maps without the tables that it makes for the types of CNI's
// library, whose results it writes three times over.
type object map[string]any

// put sets a key, unless the value is what its absence means.
func put[T comparable](o object, key string, value T) {
	var absent T
	if value != absent {
		o[key] = value
	}
}

// putList sets a key to a list that is not empty.
func putList[T any](o object, key string, list []T) {
	if len(list) > 0 {
		o[key] = list
	}
}

// putNumber sets a key to a number that is there.
func putNumber(o object, key string, number *int) {
	if number != nil {
		o[key] = *number
	}
}

// objectOf returns the JSON of a result, which is that of CNI's library but for the MTU.
func objectOf(r *types100.Result) object {
	var interfaces, ips, routes []any
	for _, i := range r.Interfaces {
		o := interfaceObject(i)

		// Results have it since 1.1.0 (CNI specification, section 5). Plugins of before change the MTU of an
		// interface and leave what the result says.
		if r.CNIVersion == "1.0.0" {
			delete(o, "mtu")
		}
		interfaces = append(interfaces, o)
	}
	for _, ip := range r.IPs {
		ips = append(ips, addressObject(ip))
	}
	for _, route := range r.Routes {
		routes = append(routes, routeObject(route))
	}

	result := object{}
	put(result, "cniVersion", r.CNIVersion)
	putList(result, "interfaces", interfaces)
	putList(result, "ips", ips)
	putList(result, "routes", routes)
	if !r.DNS.IsEmpty() {
		result["dns"] = dnsObject(r.DNS)
	}

	return result
}

func interfaceObject(i *types100.Interface) object {
	o := object{"name": i.Name}
	put(o, "mac", i.Mac)
	put(o, "mtu", i.Mtu)
	put(o, "sandbox", i.Sandbox)
	put(o, "socketPath", i.SocketPath)
	put(o, "pciID", i.PciID)
	return o
}

func addressObject(ip *types100.IPConfig) object {
	o := object{"address": ip.Address.String()}
	putNumber(o, "interface", ip.Interface)
	if len(ip.Gateway) > 0 {
		o["gateway"] = ip.Gateway.String()
	}
	return o
}

func routeObject(r *types.Route) object {
	o := object{"dst": r.Dst.String()}
	if len(r.GW) > 0 {
		o["gw"] = r.GW.String()
	}
	put(o, "mtu", r.MTU)
	put(o, "advmss", r.AdvMSS)
	put(o, "priority", r.Priority)
	putNumber(o, "table", r.Table)
	putNumber(o, "scope", r.Scope)
	return o
}

func dnsObject(dns types.DNS) object {
	o := object{}
	putList(o, "nameservers", dns.Nameservers)
	put(o, "domain", dns.Domain)
	putList(o, "search", dns.Search)
	putList(o, "options", dns.Options)
	return o
}
