// Package claims tests trivet-csi between programs that it meets in a cluster, without nodes and pods: a real
// API server and controller-manager, upstream's sidecars of CSI, a populator of volumes. What kubelet does
// with a volume, a test does itself. make e2e-claims builds the programs and runs the tests.
package claims
