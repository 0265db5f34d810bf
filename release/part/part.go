// Package part says what the four deliveries consist of: which programs, units and configuration files a
// Debian package and an image have, and what of Debian has to come with them.
package part

import "slices"

// Part is a delivery: a Debian package and an image of the same name.
type Part struct {
	Name string

	// Deploy is the directory below deploy that has the unit and the configuration.
	Deploy string

	// Programs of both architectures.
	Programs []Program

	// Service is the name of the unit.
	Service Service

	// Configuration are files of the administrator.
	Configuration []Configuration

	Package Package
	Image   Image
}

// Program of a part.
type Program struct {
	Name string

	// Source is the directory of its main package, from the root of the repository.
	Source string

	// Installed is its path on a machine with the package.
	Installed string

	// Shipped is its path in the image.
	Shipped string
}

// Configuration is a file that belongs to the administrator once it is installed.
type Configuration struct {
	// Source is its name in the part's directory.
	Source string

	// Installed is its path on a machine.
	Installed string
}

// Service is the unit of a part.
type Service struct {
	// Unit is its name.
	Unit string

	// Manual is a service that nobody but the administrator starts for the first time.
	Manual bool

	// BeforeRemoval are commands of a shell that a removal runs first; what they fail at is said and ignored.
	BeforeRemoval []string

	// Purge are commands of a shell that end what a removal leaves, except volumes, pods that run, sockets,
	// locks, and what a daemon uses that is not the package's.
	Purge []string
}

// Package is what dpkg is told.
type Package struct {
	Depends    []string
	Recommends []string
	Suggests   []string

	// Summary is one line, Description are paragraphs.
	Summary     string
	Description []string
}

// Image is what a container runtime is told.
type Image struct {
	Entrypoint []string

	// Programs are in the image beside the part's.
	Programs []Program

	// Packages are Debian's, of which the image has Tools and Trees.
	Packages []string

	// Tools are programs by their paths in the image, with their names in the packages.
	Tools map[string]string

	// Trees are files and directories of the packages.
	Trees []string
}

// Shipped are all programs of the image.
func (p Part) Shipped() []Program { return append(slices.Clone(p.Programs), p.Image.Programs...) }

// Find returns a part by its name, and whether there is one.
func Find(name string) (Part, bool) {
	for _, p := range Parts {
		if p.Name == name {
			return p, true
		}
	}
	return Part{}, false
}
