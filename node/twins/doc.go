// Package twins remembers, per user of this machine, which virtual addresses each cluster was given, so
// that a name has the same virtual address after every restart.
//
//	~/.local/state/culvert/virtual.json      per cluster and connection the virtual subnets and
//	                                         every twin ever assigned
//	~/.local/state/culvert/pool-HASH         the leases of that cluster and connection (package dns/vip)
//
// Several processes may use the file at once: a change is made under a lock, on what is there then, and
// put in place whole. A file that cannot be understood is set aside, not deleted; twins then are what they
// would be for a new machine, which is mostly the same.
//
// Package policy decides what virtual addresses are; this package decides nothing.
package twins
