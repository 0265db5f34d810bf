package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// need is a family that rules and dashboards use, with the labels by which they filter and group.
type need struct {
	Page   string
	Name   string
	Labels []string

	// Gone: kubelet does not have it any more.
	Gone bool
}

// readNeeds reads the list of docs/data.
func readNeeds(file string) ([]need, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}

	var list struct{ Metrics []need }
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}

	return list.Metrics, nil
}

// needOf returns what is needed of a family, or nil.
func needOf(needs []need, page, family string) *need {
	i := slices.IndexFunc(needs, func(n need) bool { return n.Page == page && n.Name == family })
	if i < 0 {
		return nil
	}
	return &needs[i]
}
