// Package kube is the node's view of the Kubernetes API: who the user is, the team's Policy, the
// Peer of a connection, the gateway's pods, and streams to them by port-forward.
//
// It uses the dynamic client on purpose: the typed clientset costs a long-lived process several
// megabytes and tens of milliseconds for types it never looks at. Everything here acts with the
// user's own credentials. The addresses really dialled are recorded ([Client.Dialled]), because
// they must never be routed into the tunnel they carry.
package kube
