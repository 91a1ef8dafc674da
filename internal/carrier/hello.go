package carrier

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/culvert-dev/culvert/internal/frame"
	"github.com/culvert-dev/culvert/internal/version"
)

// Hello is what each side says first. In a Keeper or Server only MTU needs to be set: the rest is filled
// in with this build's.
type Hello = frame.Hello

// ErrIncompatible says that the two programs cannot work together.
var ErrIncompatible = errors.New("incompatible versions")

func fillHello(h Hello, role string) Hello {
	h.Version = cmp.Or(h.Version, version.Version)
	h.Protocol = cmp.Or(h.Protocol, frame.Protocol)
	h.Role = role
	return h
}

// compatible returns nil when two sides that said ours and theirs can work together.
func compatible(ours, theirs Hello) error {
	if err := version.Compatible(ours.Version, theirs.Version); err != nil {
		return fmt.Errorf("%w: this %s is %s, the %s is %s: %w", ErrIncompatible,
			ours.Role, ours.Version, theirs.Role, theirs.Version, err)
	}
	if ours.Protocol != theirs.Protocol {
		return fmt.Errorf("%w: this %s speaks carrier protocol %d, the %s %d", ErrIncompatible,
			ours.Role, ours.Protocol, theirs.Role, theirs.Protocol)
	}
	if ours.Role == theirs.Role {
		return fmt.Errorf("%w: both sides are a %s", ErrIncompatible, ours.Role)
	}
	return nil
}
