// Package check tests the files of deploy/monitoring with Prometheus' own parsers: that the rules are valid,
// and that whatever rules and dashboard ask for is served. It is a module of its own, so that nothing else
// needs Prometheus.
package check
