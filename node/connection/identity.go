package connection

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"runtime"
	"strings"

	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// peerName returns the Peer's name for a user, this machine and a connection's name: readable in
// `kubectl get peers`, the same after a crash (so that the left-over is taken over), and different
// for two machines of one user.
func peerName(user, host, machineID, connection string) string {
	sum := sha256.Sum256([]byte(user + "\x00" + machineID + "\x00" + connection))
	parts := []string{label(user, 24), label(host, 24), hex.EncodeToString(sum[:4])}
	return strings.Join(parts, "-")
}

// label turns s into at most limit characters that are allowed inside a Kubernetes object name.
func label(s string, limit int) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	mapped = strings.Trim(mapped, "-")
	if len(mapped) > limit {
		mapped = strings.TrimRight(mapped[:limit], "-")
	}
	if mapped == "" {
		return "x"
	}
	return mapped
}

// machineID returns what tells this machine from others; see machine-id(5). A machine without one is
// told apart by its name.
func machineID() string {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if data, err := os.ReadFile(path); err == nil && len(data) >= 32 {
			return strings.TrimSpace(string(data))
		}
	}
	return hostname()
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// clientInfo describes this workstation in the Peer.
func clientInfo() v1alpha1.ClientInfo {
	return v1alpha1.ClientInfo{OS: runtime.GOOS, Version: version.Version, Host: label(hostname(), 63)}
}
