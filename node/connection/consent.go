package connection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
)

// consent asks the user, once per cluster and content, whether the team's Policy may take addresses
// from the host's other networks, or names from its resolvers.
func (s *Session) consent(ctx context.Context) error {
	wish := policy.ConsentNeeded(s.planInput())
	if !wish.Needed || s.request.TrustPolicy || consented(wish.Hash) {
		s.trusted = wish.Hash
		if wish.Needed {
			return rememberConsent(wish.Hash)
		}
		return nil
	}
	if !s.request.Interactive {
		return failure.New(failure.Refused, errors.New(wish.Text), "agree with --trust-policy; it is remembered for this cluster and this content")
	}
	yes, err := s.ask(ctx, wish.Text+"\nAgree?")
	if err != nil {
		return err
	}
	if !yes {
		return failure.Newf(failure.Refused, "not connected: you did not agree to the cluster's Policy")
	}
	s.trusted = wish.Hash
	return rememberConsent(wish.Hash)
}

// trustedOnly drops from the settings what the Policy wants beyond what the user agreed to.
func (s *Session) trustedOnly() {
	wish := policy.ConsentNeeded(s.planInput())
	if wish.Needed && wish.Hash != s.trusted && !consented(wish.Hash) {
		s.log.Warn("the team's Policy asks for more than you agreed to; connect again to be asked", "wish", wish.Text)
		s.settings = s.settings.Without(policy.SourcePolicy)
	}
}

// consentFile is where the user's consents are kept: a list of hashes.
func consentFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "culvert", "trusted-policies.json"), nil
}

func readConsents() (map[string]bool, error) {
	path, err := consentFile()
	if err != nil {
		return nil, err
	}
	hashes := map[string]bool{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return hashes, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &hashes); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return hashes, nil
}

func consented(hash string) bool {
	hashes, err := readConsents()
	return err == nil && hashes[hash]
}

// rememberConsent adds hash to the user's file, in place of which a new one is put.
func rememberConsent(hash string) error {
	hashes, err := readConsents()
	if err != nil {
		return fmt.Errorf("remember your consent: %w", err)
	}
	if hashes[hash] {
		return nil
	}
	hashes[hash] = true
	path, err := consentFile()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(hashes, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("remember your consent: %w", err)
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember your consent: %w", err)
	}
	return os.Rename(temporary, path)
}
