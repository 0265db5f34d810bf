package kubeletconfig

import (
	"errors"
	"fmt"
	"time"

	"github.com/trivet-node/trivet/node/threshold"
)

// checkEviction reads all that is about eviction.
func (k *Configuration) checkEviction() error {
	_, hard := threshold.ParseSet(k.EvictionHard)
	_, soft := threshold.ParseSet(k.EvictionSoft)
	p := &problems{}
	p.when(hard != nil, "evictionHard: %v", hard)
	p.when(soft != nil, "evictionSoft: %v", soft)
	p.when(k.EvictionTransitionPeriod.Duration < 0, "evictionPressureTransitionPeriod %v is negative",
		k.EvictionTransitionPeriod.Duration)

	for signal, text := range k.EvictionSoftGracePeriod {
		d, err := time.ParseDuration(text)
		p.when(!threshold.Known(signal), "evictionSoftGracePeriod: %s is not an eviction signal", signal)
		p.when(
			err != nil || d < 0,
			"evictionSoftGracePeriod: %s: %q is not a positive duration",
			signal,
			text,
		)
	}

	for signal := range k.EvictionSoft {
		_, ok := k.EvictionSoftGracePeriod[signal]
		p.when(!ok, "evictionSoft: %s has no evictionSoftGracePeriod", signal)
	}

	for signal, text := range k.EvictionMinimumReclaim {
		p.when(!threshold.Known(signal), "evictionMinimumReclaim: %s is not an eviction signal", signal)
		if _, err := threshold.ParseReclaim(text); err != nil {
			p.add(fmt.Errorf("evictionMinimumReclaim: %s: %w", signal, err))
		}
	}

	return errors.Join(p.errs...)
}
