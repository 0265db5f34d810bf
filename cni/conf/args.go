package conf

import (
	"fmt"
	"strconv"
	"strings"
)

// cniArgs is what CNI_ARGS may ask for.
type cniArgs struct {
	ip  string
	mac string
}

// parseArgs reads KEY=VALUE;KEY=VALUE. A key that is not known is an error unless IgnoreUnknown is set, so
// that a misspelt one does not go unnoticed (CNI conventions, "CNI_ARGS"). Kubernetes' own keys are known and
// none of this plugin's business.
func parseArgs(args string) (a cniArgs, err error) {
	var unknown []string
	ignore := false
	for pair := range strings.SplitSeq(args, ";") {
		if pair == "" {
			continue
		}

		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return a, fmt.Errorf("CNI_ARGS: %q is not KEY=VALUE", pair)
		}

		switch key {
		case "IP":
			a.ip = value
		case "MAC":
			a.mac = value
		case "IgnoreUnknown":
			if ignore, err = strconv.ParseBool(value); err != nil {
				return a, fmt.Errorf("CNI_ARGS: IgnoreUnknown=%s is neither true nor false", value)
			}

		case "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID":
		default:
			unknown = append(unknown, key)
		}
	}

	if len(unknown) > 0 && !ignore {
		return a, fmt.Errorf("CNI_ARGS: unknown keys %q (IgnoreUnknown=1 ignores them; known are IP and MAC)",
			unknown)
	}

	return a, nil
}
