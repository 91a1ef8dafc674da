// Package version knows this build's version and which versions of the other side it can work with.
package version

import (
	"fmt"
	"strconv"
	"strings"
)

// Version of this build, semver without a leading v. Releases set it by the linker flag
// -X github.com/culvert-dev/culvert/internal/version.Version=X.Y.Z.
var Version = "0.1.0-dev"

// Compatible returns nil when a node and a gateway of versions a and b may work together: the same
// major version and at most one minor version apart. The error names both.
func Compatible(a, b string) error {
	aMajor, aMinor, err := majorMinor(a)
	if err != nil {
		return err
	}
	bMajor, bMinor, err := majorMinor(b)
	if err != nil {
		return err
	}
	if aMajor == bMajor && max(aMinor, bMinor)-min(aMinor, bMinor) <= 1 {
		return nil
	}
	return fmt.Errorf("versions %s and %s are more than one minor version apart", a, b)
}

// majorMinor returns the first two numbers of a semver string such as "1.4.2-dev".
func majorMinor(v string) (major, minor int, err error) {
	parts := strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3)
	if len(parts) < 3 {
		return 0, 0, fmt.Errorf("version %q is not of the form MAJOR.MINOR.PATCH", v)
	}
	if major, err = strconv.Atoi(parts[0]); err != nil {
		return 0, 0, fmt.Errorf("version %q: major: %w", v, err)
	}
	if minor, err = strconv.Atoi(parts[1]); err != nil {
		return 0, 0, fmt.Errorf("version %q: minor: %w", v, err)
	}
	return major, minor, nil
}
