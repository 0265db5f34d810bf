package podenv

import (
	"net"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// serviceVariables adds the variables of one service: NAME_SERVICE_HOST and _PORT, and Docker's link
// variables. https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
func serviceVariables(out map[string]string, s *v1.Service) {
	if len(s.Spec.Ports) == 0 {
		return
	}

	name, ip := variableName(s.Name), s.Spec.ClusterIP
	out[name+"_SERVICE_HOST"] = ip
	out[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, p := range s.Spec.Ports {
		port, protocol := strconv.Itoa(int(p.Port)), "TCP"
		if p.Protocol != "" {
			protocol = string(p.Protocol)
		}
		if p.Name != "" {
			out[name+"_SERVICE_PORT_"+variableName(p.Name)] = port
		}

		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			out[name+"_PORT"] = url
		}

		link := name + "_PORT_" + port + "_" + strings.ToUpper(protocol)
		out[link] = url
		out[link+"_PROTO"] = strings.ToLower(protocol)
		out[link+"_PORT"] = port
		out[link+"_ADDR"] = ip
	}
}

func variableName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
