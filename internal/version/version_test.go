package version

import "testing"

func TestCompatible(t *testing.T) {
	for _, row := range []struct {
		name, a, b string
		ok         bool
	}{
		{"same release", "0.1.0", "0.1.0", true},
		{"development build beside a release", "0.1.0-dev", "0.1.3", true},
		{"one minor apart", "1.4.0", "1.3.9", true},
		{"two minors apart", "1.4.0", "1.2.0", false},
		{"another major", "2.0.0", "1.9.0", false},
		{"not a version", "latest", "1.0.0", false},
		{"truncated", "1.0", "1.0.0", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, err := range []error{Compatible(row.a, row.b), Compatible(row.b, row.a)} {
				if (err == nil) != row.ok {
					t.Errorf("Compatible(%q, %q) = %v, want ok %v", row.a, row.b, err, row.ok)
				}
			}
		})
	}
}
