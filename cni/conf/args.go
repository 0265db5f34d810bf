package conf

import (
	"strconv"
	"strings"
)

// Args is what CNI_ARGS may ask for.
type Args struct {
	IP      string
	Gateway string
	MAC     string
	// Pod is the Kubernetes pod that the container is of; zero for a container without one.
	Pod Pod
}

// Pod names a pod of Kubernetes.
type Pod struct {
	Namespace string
	Name      string
	UID       string
}

func (a Args) ips() []string { return words(a.IP) }

func (a Args) gateways() []string { return words(a.Gateway) }

// ParseArgs reads KEY=VALUE;KEY=VALUE. An unknown key is an error unless IgnoreUnknown is set, so that a
// misspelt one is noticed (CNI conventions, "CNI_ARGS"). Of the keys of Kubernetes, those that name the pod
// matter for network policies.
func ParseArgs(args string) (a Args, err error) {
	var unknown []string
	ignore := false
	for pair := range strings.SplitSeq(args, ";") {
		if pair == "" {
			continue
		}

		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return a, Invalid("CNI_ARGS: %q is not KEY=VALUE", pair)
		}

		switch key {
		case "IP":
			a.IP = value
		case "GATEWAY":
			a.Gateway = value
		case "MAC":
			a.MAC = value
		case "IgnoreUnknown":
			if ignore, err = strconv.ParseBool(value); err != nil {
				return a, Invalid("CNI_ARGS: IgnoreUnknown=%s is neither true nor false", value)
			}

		case "K8S_POD_NAMESPACE":
			a.Pod.Namespace = value
		case "K8S_POD_NAME":
			a.Pod.Name = value
		case "K8S_POD_UID":
			a.Pod.UID = value
		case "K8S_POD_INFRA_CONTAINER_ID":
		default:
			unknown = append(unknown, key)
		}
	}

	// IgnoreUnknown may come after what it ignores.
	if len(unknown) > 0 && !ignore {
		const hint = "IgnoreUnknown=1 ignores them; known are IP, GATEWAY and MAC"
		return a, Invalid("CNI_ARGS: unknown keys %q (%s)", unknown, hint)
	}

	return a, nil
}
