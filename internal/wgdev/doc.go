// Package wgdev is the WireGuard device of node and gateway: wireguard-go with its configuration in the
// words of wgtypes, which is the language of WireGuard configuration everywhere in this project.
//
// The device configures itself as a desired state (Configure), reports (Status), and answers `wg show`
// on a socket (ServeUAPI). A peer that is configured with an endpoint keeps it; one without follows
// its packets. Keys are never logged whole.
package wgdev
