// Package frame is the framing of WireGuard packets on a byte stream: the language that node and
// gateway speak over a Kubernetes port-forward.
//
//	0        2      3                    3+length
//	┌────────┬──────┬─────────────────────┐
//	│ length │ type │ payload             │   length: bytes of the payload, 16 bits, big endian
//	└────────┴──────┴─────────────────────┘
//
// The first frame each way is a hello. Types a receiver does not know are skipped, so that a later
// version may add some. The package holds no state but the few bytes of a frame being skipped; it does
// no I/O and never allocates for data.
package frame
