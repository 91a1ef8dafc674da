// Package pki makes the lab's certificates: one authority for the cluster, one
// for the API server's front proxy and one for the VPN, all ECDSA P-256 and
// valid for a year. Keys never leave the lab's directory.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// lifetime of every certificate; a lab is rarely a day old.
const lifetime = 365 * 24 * time.Hour

// Pair is a certificate and its key.
type Pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Request says what a certificate is for.
type Request struct {
	Name   string   // common name: a user or a server
	Groups []string // organisations: Kubernetes groups
	Server bool     // a server's certificate too, for DNS names and addresses
	DNS    []string
	Addrs  []netip.Addr
}

// NewAuthority makes a self-signed authority.
func NewAuthority(name string) (Pair, error) {
	template := base(Request{Name: name})
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = nil
	return sign(template, Pair{})
}

// Issue makes a certificate signed by the authority.
func (authority Pair) Issue(r Request) (Pair, error) {
	template := base(r)
	template.DNSNames = r.DNS
	if r.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, a := range r.Addrs {
		template.IPAddresses = append(template.IPAddresses, net.IP(a.AsSlice()))
	}
	return sign(template, authority)
}

func base(r Request) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // the system's random source never fails
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: r.Name, Organization: r.Groups},
		NotBefore:    now.Add(-time.Hour), // clocks of virtual machines jump
		NotAfter:     now.Add(lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// sign makes a key and signs the template with the authority, or with the new
// key itself when the authority is the zero value.
func sign(template *x509.Certificate, authority Pair) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	parent, signer := authority.cert, authority.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), crypto.Signer(signer))
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	return Pair{cert: cert, key: key}, err
}

// CertPEM is the certificate in PEM form.
func (p Pair) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

// KeyPEM is the private key in PEM form (SEC 1, which every component reads).
func (p Pair) KeyPEM() []byte {
	der, err := x509.MarshalECPrivateKey(p.key)
	if err != nil {
		panic(err) // only for curves we do not use
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// PublicPEM is the public key in PEM form.
func (p Pair) PublicPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Write stores DIR/NAME.crt and DIR/NAME.key, the key for root alone.
func (p Pair) Write(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), p.CertPEM(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), p.KeyPEM(), 0o600)
}

// Read loads what Write stored.
func Read(dir, name string) (Pair, error) {
	var p Pair
	der, err := readBlock(filepath.Join(dir, name+".crt"))
	if err != nil {
		return p, err
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		return p, fmt.Errorf("%s.crt: %w", name, err)
	}
	if der, err = readBlock(filepath.Join(dir, name+".key")); err != nil {
		return p, err
	}
	p.key, err = x509.ParseECPrivateKey(der)
	return p, err
}

func readBlock(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", path)
	}
	return block.Bytes, nil
}
