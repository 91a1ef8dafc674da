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
	"github.com/culvert-dev/culvert/node/userfile"
	"github.com/culvert-dev/culvert/policy"
)

// consent asks the user, once per cluster and content, whether the team's Policy may take addresses
// from the host's other networks, or names from its resolvers.
func (s *Session) consent(ctx context.Context) error {
	wish := policy.ConsentNeeded(s.planInput(s.settings, s.cluster))
	if !wish.Needed || s.agreed(wish.Hash) {
		return nil
	}
	if !s.request.TrustPolicy {
		if err := s.askConsent(ctx, wish.Text); err != nil {
			return err
		}
	}
	s.trusted = wish.Hash
	if err := rememberConsent(wish.Hash); err != nil { // the answer holds for this connection all the same
		s.notice(noticeRemember, err)
	}
	return nil
}

func (s *Session) askConsent(ctx context.Context, text string) error {
	if !s.request.Interactive {
		return failure.New(failure.Refused, errors.New(text), "agree with --trust-policy; it is remembered for this cluster and this content")
	}
	yes, err := s.ask(ctx, text+"\nAgree?")
	if err == nil && !yes {
		err = failure.Newf(failure.Refused, "not connected: you did not agree to the cluster's Policy")
	}
	return err
}

// agreed reports whether the user has agreed to what has this hash, now or earlier.
func (s *Session) agreed(hash string) bool { return hash == s.trusted || consented(hash) }

// agreeToLess takes the user's agreement to the wishes followed so far for one to those of settings, whose
// hash is given, if they take nothing more, and reports whether it has.
func (s *Session) agreeToLess(settings policy.Settings, cluster policy.Cluster, hash string) bool {
	now := policy.ConsentNeeded(s.planInput(s.settings, s.cluster))
	if !s.agreed(now.Hash) || !policy.TakesNoMore(settings, cluster, s.settings, s.cluster) {
		return false
	}
	s.trusted = hash
	if err := rememberConsent(hash); err != nil {
		s.notice(noticeRemember, err)
	}
	return true
}

// agreedOnly drops from settings what the Policy wants beyond what the user agreed to. Nothing is
// asked for while nothing is taken, so this comes about when a VPN starts after connecting.
func (s *Session) agreedOnly(settings policy.Settings, cluster policy.Cluster) policy.Settings {
	wish := policy.ConsentNeeded(s.planInput(settings, cluster))
	if !wish.Needed || s.agreed(wish.Hash) {
		s.notice(noticeConsent, nil)
		return settings
	}
	s.notice(noticeConsent, errors.New("the team's Policy now takes something from this host that you were not asked about; `culvert quit` and connect again to be asked"))
	return settings.Without(policy.SourcePolicy)
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
	if err := userfile.Replace(path, append(data, '\n')); err != nil {
		return fmt.Errorf("remember your consent: %w", err)
	}
	return nil
}
