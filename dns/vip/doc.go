// Package vip is the pool of leased virtual addresses: what a program on the host uses for an address of the cluster
// that has no place of its own in the virtual subnet.
//
//	DNS answer ─► Lease(real, name) ─► virtual address ─► file (appended before it is handed out)
//	packet out ─► Real(vip) ─┐
//	packet in  ─► VIP(real) ─┴─► marks the lease as used; no lock, no allocation
//
// The rule of reclaim, for users: a virtual address is given to another host only when the pool is full, only after
// nobody has resolved it or exchanged packets over it for two minutes ([Config.Quarantine]), and the longest unused
// goes first. If none is that old, the one name that asked fails and everything else stays as it is.
//
// So an address never becomes free again: a new lease takes one that was never leased, or the place of a reclaimed
// one. New leases prefer the low bits of the real address, so that both look alike and a lost file gives mostly the
// same addresses again. One name may hold a part of the pool only; a lease unused for the quarantine no longer counts.
//
// Leases outlive the process. The file survives kill -9 since every lease is written before it is handed out; it is
// not flushed to the disk, so a power loss may cost the newest leases. After a clean [Pool.Close] the last uses are
// known; after a crash every lease counts as used when the file is opened. A file that cannot be written costs
// persistence and never a name.
//
// A [Pool] owns its leases and its file; the file is locked from [Open] to [Pool.Close]. All methods may be called from
// several goroutines, and the package starts none. It does not translate packets or rewrite answers, and does not
// choose its prefixes: package policy does.
package vip
