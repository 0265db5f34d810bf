package btrfs

// ExtentsIn is Extents in a tree that need not exist.
var ExtentsIn = extentsIn
