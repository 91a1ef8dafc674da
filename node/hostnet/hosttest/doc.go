// Package hosttest is a host in memory, for the tests of what changes one: it takes the changes of
// package hostnet as the kernel takes them, beside what other programs have there, and prints itself
// as the lines of ip link, ip address, ip rule, ip route and nft list tables.
//
// It models what our changes depend on and no more: which rule a deletion hits, that routes need
// their interface and go with it, that an interface goes with its last descriptor. The tests with
// real kernels are in node/helper.
//
// [Host] owns all state; its methods are safe for concurrent use.
package hosttest
