package policy

import (
	_ "embed"
	"fmt"
	"path"
	"strings"
)

//go:embed owners.txt
var ownersText string

// ownerClass says what kind of network an owner's interface leads to.
type ownerClass string

const (
	classVPN   ownerClass = "vpn"
	classLocal ownerClass = "local"
)

// ownerPattern is one line of owners.txt. Its kind is "" for interfaces without one.
type ownerPattern struct {
	kind, name string
	class      ownerClass
	owner      string
}

var owners = mustParseOwners(ownersText)

func mustParseOwners(text string) []ownerPattern {
	patterns, err := parseOwners(text)
	if err != nil {
		panic("policy: owners.txt: " + err.Error())
	}
	return patterns
}

func parseOwners(text string) ([]ownerPattern, error) {
	var out []ownerPattern
	for n, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 4 {
			return nil, fmt.Errorf("line %d: want kind, name pattern, class and owner, got %q", n+1, line)
		}
		p := ownerPattern{strings.TrimPrefix(f[0], "-"), f[1], ownerClass(f[2]), strings.Join(f[3:], " ")}
		if _, err := path.Match(p.name, ""); err != nil {
			return nil, fmt.Errorf("line %d: name pattern %q: %w", n+1, p.name, err)
		}
		if p.class != classVPN && p.class != classLocal {
			return nil, fmt.Errorf("line %d: class %q is neither vpn nor local", n+1, p.class)
		}
		out = append(out, p)
	}
	return out, nil
}

// LikelyOwner returns the program that an interface probably belongs to, judging by its kind and
// name, or "" if nothing is known. It is a guess, good for a sentence to a person only.
func LikelyOwner(l Link) string {
	return ownerOf(l).owner
}

// LikelyOwnerOfRule returns the program that a rule, and the table that it looks up, probably belong to,
// judging by their numbers, or "" if nothing is known. It helps where a program has no interface of its
// own, as with IPsec. It is a guess, good for a sentence to a person only.
func LikelyOwnerOfRule(r Rule) string {
	if r.Action != "" && r.Action != ActionLookup || r.L3MDev {
		return ""
	}
	return firstOwner("rule", fmt.Sprintf("%d/%d", r.Priority, r.Table)).owner
}

const (
	// ConnectionAlias plus a connection's name is the alias of its interface.
	ConnectionAlias = "culvert connection "
	// connectionOwner plus the name is whom the interface belongs to.
	connectionOwner = "Culvert connection "
)

func ownerOf(l Link) ownerPattern {
	p := firstOwner(l.Kind, l.Name)
	if name, told := strings.CutPrefix(l.Alias, ConnectionAlias); told && p.name == "culvert*" {
		p.owner = connectionOwner + name
	}
	return p
}

// firstOwner returns the first pattern that fits, or the zero value.
func firstOwner(kind, name string) ownerPattern {
	for _, p := range owners {
		if p.kind != kind {
			continue
		}
		if ok, _ := path.Match(p.name, name); ok {
			return p
		}
	}
	return ownerPattern{}
}

// tunnelKinds are the link kinds that carry packets to another place inside other packets. A network
// connected by one is not a LAN.
var tunnelKinds = map[string]bool{
	"tun": true, "wireguard": true, "ppp": true, "xfrm": true, "vti": true, "vti6": true,
	"ipip": true, "sit": true, "ip6tnl": true, "gre": true, "gretap": true, "ip6gre": true,
	"ip6gretap": true, "vxlan": true, "geneve": true, "l2tp": true,
}

// isTunnel reports whether packets sent to l travel on inside others.
func isTunnel(l Link) bool { return tunnelKinds[l.Kind] || l.PointToPoint }
