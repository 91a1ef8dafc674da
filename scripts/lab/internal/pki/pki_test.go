package pki

import (
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestIssue(t *testing.T) {
	ca, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Issue(Request{Name: "api", Server: true, DNS: []string{"kubernetes.default.svc"}, Addrs: []netip.Addr{netip.MustParseAddr("10.130.0.1"), netip.MustParseAddr("fd00::1")}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Issue(Request{Name: "alice", Groups: []string{"team"}})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, name := range []string{"kubernetes.default.svc", "10.130.0.1", "fd00::1"} {
		if _, err := server.cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("the server's certificate is no good for %s: %v", name, err)
		}
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := client.cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: usages}); err != nil {
		t.Errorf("the client's certificate: %v", err)
	}
	if _, err := client.cert.Verify(x509.VerifyOptions{Roots: roots}); err == nil {
		t.Error("a client's certificate passes as a server's")
	}
	if got := client.cert.Subject.Organization; len(got) != 1 || got[0] != "team" {
		t.Errorf("groups are %v", got)
	}
	if _, err := client.cert.Verify(x509.VerifyOptions{Roots: x509.NewCertPool(), KeyUsages: usages}); err == nil {
		t.Error("the certificate verifies without its authority")
	}
}

func TestWriteRead(t *testing.T) {
	ca, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "pki")
	if err := ca.Write(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v (%v), want 0600", info.Mode(), err)
	}
	back, err := Read(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	if !back.key.Equal(ca.key) || !back.cert.Equal(ca.cert) {
		t.Error("what was read differs from what was written")
	}
	if _, err := Read(dir, "missing"); !os.IsNotExist(err) {
		t.Errorf("reading a missing pair: %v", err)
	}
}
