// Package api is how the commands speak to a running connection: HTTP with JSON over the Unix socket
// /run/culvert/NAME/api.sock.
//
//	GET  /v1/status   anyone on the machine   Status
//	GET  /v1/plan     anyone on the machine   Plan, the one in force
//	GET  /v1/why      anyone on the machine   Why, of the name or address in ?target=
//	POST /v1/quit     owner and root          ends the connection, answers once the host is restored
//
// The kernel tells who is at the other end (SO_PEERCRED, unix(7)); nothing a client says about itself
// is believed. The package owns no state: [Handler] is what the connection gives it.
package api
