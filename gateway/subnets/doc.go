// Package subnets finds out which prefixes a cluster uses for services and pods.
//
//	services: the chart's values, else ServiceCIDR objects, else the answer to an impossible Service
//	pods:     the chart's values, else kubeadm's podSubnet or else the nodes' podCIDRs, where they
//	          contain the gateway's own address, else a cover of the pods' addresses
//
// [Decide] is pure: what the API says goes in, prefixes with their sources come out, for each address
// family by itself. A [Discoverer] watches the API, remembers the cover of this session (it never
// shrinks: a pod that moves must not cut those who talk to its neighbour) and hands every new result
// to its owner. It owns all state of the package in one goroutine.
package subnets
