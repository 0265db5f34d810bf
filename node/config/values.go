package config

import (
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/kubeletconfig"
)

// set reads the text of a flag into what p points at. Lists and maps of flags that are repeated grow,
// unless this is the first.
func set(p any, text string, first bool) (err error) {
	switch p := p.(type) {
	case *string:
		*p = text
	case **string:
		*p = &text
	case *[]string:
		if first {
			*p = []string{}
		}

		*p = append(*p, split(text)...)

	case *bool:
		*p, err = strconv.ParseBool(text)
	case **bool:
		*p, err = parsed(strconv.ParseBool(text))
	case *metav1.Duration:
		p.Duration, err = time.ParseDuration(text)
	case **metav1.Duration:
		var d time.Duration
		d, err = time.ParseDuration(text)
		*p = &metav1.Duration{Duration: d}

	case *map[string]string, *map[string]bool, *map[string][]string:
		err = setMap(p, text, first)
	case *[]v1.Taint:
		*p, err = parseTaints(text)
	case *[]kubeletconfig.MemoryReservation:
		err = addReservation(p, text)
	default:
		err = setNumber(p, text)
	}

	return err
}

func setNumber(p any, text string) (err error) {
	switch p := p.(type) {
	case *int32:
		*p, err = parseInt[int32](text, 32)
	case **int32:
		*p, err = parsed(parseInt[int32](text, 32))
	case *uint32:
		*p, err = parseInt[uint32](text, 32)
	case *int64:
		*p, err = parseInt[int64](text, 64)
	case **int64:
		*p, err = parsed(parseInt[int64](text, 64))
	case **int:
		*p, err = parsed(parseInt[int](text, 32))
	default:
		err = fmt.Errorf("cannot be set by a flag")
	}

	return err
}

func parseInt[T int | int32 | uint32 | int64](text string, bits int) (T, error) {
	n, err := strconv.ParseInt(text, 10, bits)
	return T(n), err
}

func parsed[T any](value T, err error) (*T, error) { return &value, err }

// split reads a list; an empty text is an empty list.
func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// setMap reads key=value,... The thresholds of eviction have a "<", headers a ":".
func setMap(p any, text string, first bool) error {
	pairs := map[string]string{}
	for item := range strings.SplitSeq(text, ",") {
		if item == "" {
			continue
		}

		i := strings.IndexAny(item, "=<:")
		if i < 1 {
			return fmt.Errorf("%q is not key=value", item)
		}

		pairs[strings.TrimSpace(item[:i])] = strings.TrimSpace(item[i+1:])
	}

	// Whether a repeated flag adds to the file's or replaces it is kubelet's behaviour for each of them.
	switch p := p.(type) {
	case *map[string]string:
		if first || *p == nil {
			*p = map[string]string{}
		}

		maps.Copy(*p, pairs)

	case *map[string][]string:
		if *p == nil {
			*p = map[string][]string{}
		}

		for key, value := range pairs {
			(*p)[key] = append((*p)[key], value)
		}

	case *map[string]bool:
		// Feature gates of the file count, too.
		if *p == nil {
			*p = map[string]bool{}
		}

		for key, value := range pairs {
			on, err := strconv.ParseBool(value)
			if err != nil {
				return fmt.Errorf("%s: %q is neither true nor false", key, value)
			}

			(*p)[key] = on
		}
	}

	return nil
}

// addLabels reads key=value,...; a key alone has an empty value.
func addLabels(labels map[string]string, text string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	for item := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(item, "=")
		if key != "" {
			out[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return out
}

func parseIPs(text string) ([]net.IP, error) {
	var out []net.IP
	for s := range strings.SplitSeq(text, ",") {
		if s == "" {
			continue
		}

		ip := net.ParseIP(strings.TrimSpace(s))
		if ip == nil {
			return nil, fmt.Errorf("%q is not an IP address", s)
		}

		out = append(out, ip)
	}

	return out, nil
}

// parseTaints reads key=value:effect,...; whether they are valid is for the check of the configuration to
// say.
func parseTaints(text string) ([]v1.Taint, error) {
	out := []v1.Taint{}
	for s := range strings.SplitSeq(text, ",") {
		if s == "" {
			continue
		}

		head, effect, ok := strings.Cut(s, ":")
		key, value, _ := strings.Cut(head, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is not key=value:effect", s)
		}

		out = append(out, v1.Taint{Key: key, Value: value, Effect: v1.TaintEffect(effect)})
	}

	return out, nil
}

// addReservation reads NODE:resource=quantity,...
func addReservation(p *[]kubeletconfig.MemoryReservation, text string) error {
	node, list, ok := strings.Cut(text, ":")
	number, err := strconv.ParseInt(node, 10, 32)
	if !ok || err != nil {
		return fmt.Errorf("%q is not NODE:resource=quantity,...", text)
	}

	out := kubeletconfig.MemoryReservation{NumaNode: int32(number), Limits: v1.ResourceList{}}
	for item := range strings.SplitSeq(list, ",") {
		name, amount, _ := strings.Cut(item, "=")
		q, err := resource.ParseQuantity(amount)
		if err != nil {
			return fmt.Errorf("%q: %w", item, err)
		}

		out.Limits[v1.ResourceName(name)] = q
	}

	*p = append(*p, out)
	return nil
}
