package api

import (
	"net/netip"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/dns/vip"
	"github.com/culvert-dev/culvert/policy"
)

// Versions of Plan and Why as JSON; each grows when a field changes its meaning. docs/plan.md describes
// the fields.
const (
	PlanVersion = 1
	WhyVersion  = 1
)

// Plan is what becomes of the host's routes, and why.
type Plan struct {
	Version int    `json:"version"`
	Name    string `json:"name"` // of the connection
	// InForce says that a connection follows the plan now. Else it is what connecting would come to.
	InForce bool `json:"inForce"`
	// Refused says that connecting would fail over a conflict, with exit code 3.
	Refused bool        `json:"refused"`
	Plan    policy.Plan `json:"plan"`
	// Narrowed is what was asked for beyond what the team's Policy enforces.
	Narrowed []policy.Narrowing `json:"narrowed,omitempty"`
	// Consent is what the user would be asked to agree to before the plan is followed.
	Consent []string `json:"consent,omitempty"`
	// Diff is what would change against the plan in force, or against nothing while none is; absent
	// unless it was asked for.
	Diff []policy.Change `json:"diff,omitzero"`
	// Basis is what of a running connection a plan in its place starts from; absent without one.
	Basis *Basis `json:"basis,omitempty"`
}

// Basis is what one connection has on this host.
type Basis struct {
	Interface string             `json:"interface"`
	Overlay   []netip.Prefix     `json:"overlay"`
	Protected []policy.Protected `json:"protected"`
}

// Why says how programs on this host reach a name or an address.
type Why struct {
	Version int    `json:"version"`
	Target  string `json:"target"` // as asked
	Name    string `json:"name"`   // of the connection
	// InForce says that a connection decides about the target now; else it is what connecting would come
	// to.
	InForce bool `json:"inForce"`
	// Trace is how the name is resolved; absent for an address.
	Trace *dns.Trace `json:"trace,omitempty"`
	// Addresses are explained one by one: those that a program gets, then those withheld from it.
	Addresses []Explained `json:"addresses"`
}

// Explained is what becomes of packets to one address.
type Explained struct {
	policy.Explanation
	// Interface is the tunnel's; "" while there is none.
	Interface string `json:"interface,omitempty"`
	// Lease is what a virtual address out of the pool stands for, or by which one a pooled address is
	// reached; nil if none is leased.
	Lease *vip.Info `json:"lease,omitempty"`
	// Kernel is what the kernel says at this moment.
	Kernel Kernel `json:"kernel"`
}

// Kernel is the kernel's answer to "where does an ordinary packet to that address go?".
type Kernel struct {
	// Interface is "" when the packet goes nowhere, which Refusal explains.
	Interface string     `json:"interface,omitempty"`
	Table     int        `json:"table,omitempty"`
	NextHop   netip.Addr `json:"nextHop,omitzero"`
	Local     bool       `json:"local,omitempty"`
	Refusal   string     `json:"refusal,omitempty"`
	// Error is set when the kernel could not be asked.
	Error string `json:"error,omitempty"`
}
