package conf

import (
	"strconv"
	"strings"
)

// cniArgs is what CNI_ARGS may ask for.
type cniArgs struct {
	ip  string
	mac string
}

// parseArgs reads KEY=VALUE;KEY=VALUE. An unknown key is an error unless IgnoreUnknown is set, so that a
// misspelt one is noticed (CNI conventions, "CNI_ARGS"). The keys of Kubernetes are known and mean nothing
// here.
func parseArgs(args string) (a cniArgs, err error) {
	var unknown []string
	ignore := false
	for pair := range strings.SplitSeq(args, ";") {
		if pair == "" {
			continue
		}

		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return a, invalid("CNI_ARGS: %q is not KEY=VALUE", pair)
		}

		switch key {
		case "IP":
			a.ip = value
		case "MAC":
			a.mac = value
		case "IgnoreUnknown":
			if ignore, err = strconv.ParseBool(value); err != nil {
				return a, invalid("CNI_ARGS: IgnoreUnknown=%s is neither true nor false", value)
			}

		case "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID":
		default:
			unknown = append(unknown, key)
		}
	}

	// IgnoreUnknown may come after what it ignores.
	if len(unknown) > 0 && !ignore {
		const hint = "IgnoreUnknown=1 ignores them; known are IP and MAC"
		return a, invalid("CNI_ARGS: unknown keys %q (%s)", unknown, hint)
	}

	return a, nil
}
