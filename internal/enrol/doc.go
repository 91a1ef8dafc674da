// Package enrol is how a workstation's node makes itself known to an agent, the gateway program inside one
// pod of a workload. It is the language of both sides; it keeps no state and decides nothing about who is
// served.
//
//	node                                  agent (the pod's loopback, by an authorised port-forward)
//	  │  {"protocol":1, "version", "connection", "publicKey", "node":[…], "agent":[…], "twins":[{"real","virtual"}]}
//	  ├──────────────────────────────────────────►│
//	  │  {"protocol":1, "version", "publicKey", "podUID"}   or   {…, "reason", "error"}
//	  │◄──────────────────────────────────────────┤
//
// A stream carries any number of such exchanges, one line of JSON each way, one after the other. A request
// says everything that the node wants; the next one of the same node replaces it, and one with "bye" ends
// what it has. A stream that ends changes nothing.
//
// Unknown keys are ignored, so that a later version may add some; a change that an older program must not
// overlook gets another [Protocol]. Lines are bounded by [MaxRequest] and [MaxAnswer], and after one that is
// malformed the agent closes the stream: what speaks another language, such as HTTP, does not get further.
package enrol
