// Package packet reads and builds the IP packets that Culvert handles outside any network stack:
// headers, checksums, addresses replaced in place, ICMP echo and errors, TCP resets, fragments and their
// reassembly.
//
// It works on byte slices and net/netip values, keeps no global state, does no I/O and never
// trusts a length field. Every function that takes a packet from outside is fuzzed.
//
//	bytes ──► Parse ──► Header{Src, Dst, Proto, ...}  ──► ParseTCP, ParseUDP, ParseEcho
//	bytes ──► Reassembler.Add ──► whole packet
//	Header + bytes ──► RewriteSrc, RewriteDst; ParseQuote ──► Quote.RewriteSrc    (in place)
//	Header + bytes ──► AppendUnreachable, AppendReset, AppendEchoReply  (answers)
//	addresses + payload ──► AppendUDP ──► Fragment                      (datagrams)
package packet
