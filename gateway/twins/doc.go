// Package twins is the 1:1 translation of prefixes that a Peer asks for in spec.twins: an address in a
// virtual prefix stands for the one with the same host bits in the real prefix.
//
//	a program's view        246.130.4.7
//	                             │  Map.Real
//	the cluster's view      10.130.4.7
//
// A [Map] is a pure function of an address, made once and never changed, in the form that every data plane
// can use: sorted virtual prefixes that lie apart, which is what an nftables interval map with
// "dnat ip prefix to" takes element by element, one map per Peer and family.
//
// The package has no state, does no I/O and decides nothing about who may reach what: the caller asks that
// of the real address.
package twins
