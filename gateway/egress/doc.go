// Package egress decides which addresses the gateway may dial for a workstation.
//
// The gateway is no open proxy: it reaches the cluster's services and pods, and what the chart's
// egress.allow names. Addresses that would give away the pod's own identity or privileges (its
// loopback, link-local, cloud metadata, itself) or another Peer's are never reached, however wide a
// permitted prefix is, unless egress.allow names them explicitly:
//
//	permitted = (services + pods + allow) - (each never prefix - the entries of allow inside it)
//
// [Compile] turns an [Input] into an immutable [Set]; a [Gate] holds the set now in force and can be
// asked and replaced from any goroutine. The package does no I/O and knows no packets.
package egress
