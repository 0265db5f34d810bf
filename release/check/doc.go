// Package check looks at what make dist has written as those who take it do: sums are compared, images are
// read by go-containerregistry, SBOMs by CycloneDX' own schema, packages by dpkg-deb and lintian, units by
// systemd-analyze, and programs are run, under qemu-user where they are of another architecture.
package check
