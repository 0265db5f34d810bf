// Package scenario tests a whole cluster as its users meet it: through kubectl, while its parts are killed,
// cut off and rebooted. The tests need a cluster that is up (make up) and drive it by the trivet-cluster
// program; make e2e does all of it.
package scenario
