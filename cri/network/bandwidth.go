package network

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// The annotations of a pod that say how fast it receives and sends, in bits per second.
const (
	ingressAnnotation = "kubernetes.io/ingress-bandwidth"
	egressAnnotation  = "kubernetes.io/egress-bandwidth"
)

// bandwidth bounds what a pod receives and sends, in the words of the capability of that name: bits per
// second and bits; 0 is no limit.
type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// burst is what may pass at once, of which annotations say nothing: 512 MiB, as with containerd.
const burst = math.MaxUint32

// bandwidth returns the limits that the pod's annotations ask for, nil for none.
func (a Attachment) bandwidth() (*bandwidth, error) {
	ingress, err := a.rate(ingressAnnotation)
	if err != nil {
		return nil, err
	}
	egress, err := a.rate(egressAnnotation)
	if err != nil || ingress == 0 && egress == 0 {
		return nil, err
	}

	b := &bandwidth{IngressRate: ingress, EgressRate: egress}
	if ingress > 0 {
		b.IngressBurst = burst
	}
	if egress > 0 {
		b.EgressBurst = burst
	}
	return b, nil
}

// rate returns what an annotation says, 0 if there is none.
func (a Attachment) rate(annotation string) (uint64, error) {
	text, ok := a.Annotations[annotation]
	if !ok {
		return 0, nil
	}
	if len(text) > maxLength {
		const format = "annotation %s: %d characters are more than a quantity, such as 10M, has"
		return 0, fmt.Errorf(format, annotation, len(text))
	}
	rate, err := parseRate(text)
	if err != nil {
		return 0, fmt.Errorf("annotation %s: %q %w", annotation, text, err)
	}
	return rate, nil
}

// maxLength bounds what a pod's author has parsed, in time that grows with its square.
const maxLength = 64

// The rates that kubelet and containerd admit.
const (
	minRate = 1e3
	maxRate = 1e15
)

// parseRate parses a quantity of Kubernetes, which it rounds up to whole bits per second.
func parseRate(text string) (uint64, error) {
	value := parseQuantity(text)
	switch {
	case value == nil:
		return 0, errors.New("is not a quantity, such as 10M")
	case value.Cmp(big.NewRat(maxRate, 1)) > 0:
		return 0, errors.New("is more than 1P")
	}

	whole, rest := new(big.Int).QuoRem(value.Num(), value.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	if whole.Cmp(big.NewInt(minRate)) < 0 {
		return 0, errors.New("is less than 1k")
	}
	return whole.Uint64(), nil
}

// quantity is how Kubernetes writes numbers: with a suffix or an exponent, of which three digits are more
// than any rate has.
var quantity = regexp.MustCompile(
	`^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,3}))?$`)

// factorOf returns what a suffix stands for: a power of ten or, with an i, of 1024.
func factorOf(suffix string) *big.Rat {
	if letter, binary := strings.CutSuffix(suffix, "i"); binary {
		return big.NewRat(1<<(10*(1+strings.Index("KMGTPE", letter))), 1)
	}

	const small, large = "num", "kMGTPE"
	switch i := strings.Index(small, suffix); {
	case suffix == "":
		return big.NewRat(1, 1)
	case i >= 0:
		return big.NewRat(1, power10(3*(len(small)-i)))
	}
	return big.NewRat(power10(3*(1+strings.Index(large, suffix))), 1)
}

// power10 is ten to an exponent of at most 18.
func power10(exponent int) int64 {
	power := int64(1)
	for range exponent {
		power *= 10
	}
	return power
}

// parseQuantity returns the value of a quantity, nil for what is none.
func parseQuantity(text string) *big.Rat {
	parts := quantity.FindStringSubmatch(text)
	if parts == nil {
		return nil
	}
	value, ok := new(big.Rat).SetString(parts[1])
	if !ok {
		return nil
	}

	value.Mul(value, factorOf(parts[2]))
	if parts[3] == "" {
		return value
	}

	exponent, err := strconv.Atoi(parts[3])
	if err != nil {
		return nil
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exponent, -exponent))), nil)
	if exponent < 0 {
		return value.Quo(value, new(big.Rat).SetInt(power))
	}
	return value.Mul(value, new(big.Rat).SetInt(power))
}
