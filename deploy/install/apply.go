package install

import (
	"context"
	"errors"
	"io"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/kube"
	rcommon "helm.sh/helm/v4/pkg/release/common"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/failure"
)

// Options say how to install or upgrade.
type Options struct {
	Values Values
	// ResetValues drops the values of earlier installs and upgrades; otherwise they are kept and
	// Values change only what they name.
	ResetValues bool
	// CreateNamespace lets a missing namespace be made.
	CreateNamespace bool
	// Wait waits until the gateway is ready, at most Timeout.
	Wait    bool
	Timeout time.Duration
	// ForceConflicts takes over fields that another field manager set.
	ForceConflicts bool
	// DryRun, if set, receives what would be applied, and nothing is changed.
	DryRun io.Writer
}

// deadRelease is how long an operation of Helm may be recorded as running before it is taken for
// one that was killed. Nothing here works on a release for longer: waiting comes afterwards.
const deadRelease = 2 * time.Minute

// historyMax is how many revisions of the release are kept, as Helm's own command does.
const historyMax = 10

// Install installs the gateway, or brings an installed one to this version with the values it has
// and those given; to repeat it changes nothing.
func (i *Installer) Install(ctx context.Context, o Options) error {
	return i.apply(ctx, o, true)
}

// Upgrade is Install for a gateway that must be there already. The error for one that is not has the
// exit code of a missing gateway.
func (i *Installer) Upgrade(ctx context.Context, o Options) error {
	return i.apply(ctx, o, false)
}

func (i *Installer) apply(ctx context.Context, o Options, mayInstall bool) error {
	values, err := o.Values.Merge()
	if err != nil {
		return err
	}
	kubernetes, err := i.serverVersion(ctx)
	if err != nil {
		return err
	}
	current, unreadable := i.currentRelease()
	if unreadable != nil && !apierrors.IsForbidden(unreadable) {
		return unreadable
	}
	if unreadable == nil && current == nil && !mayInstall {
		return i.notInstalled()
	}
	planned, err := i.plan(ctx, current, kubernetes, values, o)
	if err != nil {
		return err
	}
	if o.DryRun != nil && unreadable == nil {
		return planned.print(o.DryRun, i.namespace, o.CreateNamespace && current == nil)
	}
	// A release that may not be read is one missing right of several: name them all.
	if err := errors.Join(i.checkRights(ctx, planned.rights(i.namespace, i.namespaceMissing(ctx))), unreadable); err != nil {
		return firstFailure(err)
	}
	if err := i.change(ctx, current, planned, o); err != nil {
		return err
	}
	if o.Wait {
		return i.WaitReady(ctx, o.Timeout)
	}
	return nil
}

// firstFailure returns the first of joined errors, which speaks for the rest.
func firstFailure(joined error) error {
	var first *failure.Failure
	if errors.As(joined, &first) {
		return first
	}
	return joined
}

// notInstalled is the failure of everything that needs a gateway where there is none.
func (i *Installer) notInstalled() error {
	return failure.Newf(failure.GatewayState, "the gateway is not installed in namespace %s of %s", i.namespace, i.host).
		WithHint("an administrator installs it once: culvert gateway install")
}

// currentRelease returns the latest release that counts, nil if there is none. One that another
// process is working on is an error; one whose process was killed is marked as failed.
func (i *Installer) currentRelease() (*release.Release, error) {
	last, err := i.helm.Releases.Last(ReleaseName)
	if errors.Is(err, driver.ErrReleaseNotFound) || errors.Is(err, driver.ErrNoDeployedReleases) {
		return nil, nil
	}
	if err != nil {
		return nil, i.explain("read the release in namespace "+i.namespace, err)
	}
	current, err := asRelease(last)
	if err != nil {
		return nil, err
	}
	switch status := current.Info.Status; {
	case status == rcommon.StatusUninstalled:
		return nil, nil
	case !status.IsPending():
		return current, nil
	case time.Since(current.Info.LastDeployed) < deadRelease:
		return nil, failure.Newf(failure.General, "another install or upgrade of the gateway is running since %s (%s)", current.Info.LastDeployed.Format(time.TimeOnly), status).
			WithHint("wait for it; if it was killed, try again after %s", current.Info.LastDeployed.Add(deadRelease).Format(time.TimeOnly))
	}
	i.out.step("revision %d was interrupted (%s) and counts as failed", current.Version, current.Info.Status)
	current.SetStatus(rcommon.StatusFailed, "interrupted")
	return current, i.explain("mark the interrupted release as failed", i.helm.Releases.Update(current))
}

// change applies the plan: definitions first, since the release has objects of them.
func (i *Installer) change(ctx context.Context, current *release.Release, p *planned, o Options) error {
	if err := i.applyCRDs(ctx, p.crds); err != nil {
		return err
	}
	if err := i.ensureNamespace(ctx, o.CreateNamespace); err != nil {
		return err
	}
	return i.release(ctx, current, p, o)
}

// release makes the next revision. It is made also when nothing differs from the one before, since
// that puts back what was changed or deleted by hand; pods restart only if their template differs.
func (i *Installer) release(ctx context.Context, current *release.Release, p *planned, o Options) error {
	defer i.out.waiting("the API server to take the release")()
	if current == nil {
		applied, err := i.install(ctx, p, o)
		if err != nil {
			return i.explain("install the gateway in namespace "+i.namespace, err)
		}
		i.out.step("gateway %s installed in namespace %s (revision %d)", version.Version, i.namespace, applied.Version)
		return nil
	}
	applied, err := i.upgrade(ctx, p, o)
	if err != nil {
		return i.explain("upgrade the gateway in namespace "+i.namespace, err)
	}
	if current.Manifest == p.release.Manifest {
		i.out.step("gateway %s was installed in namespace %s; applied again without a change (revision %d)", version.Version, i.namespace, applied.Version)
		return nil
	}
	i.out.step("gateway %s upgraded in namespace %s (revision %d)", version.Version, i.namespace, applied.Version)
	return nil
}

// install creates the first release.
func (i *Installer) install(ctx context.Context, p *planned, o Options) (*release.Release, error) {
	install := action.NewInstall(i.helm)
	install.ReleaseName, install.Namespace = ReleaseName, i.namespace
	install.ForceConflicts = o.ForceConflicts
	install.WaitStrategy, install.Timeout = kube.HookOnlyStrategy, deadRelease
	applied, err := install.RunWithContext(ctx, p.chart, p.values)
	if err != nil {
		return nil, err
	}
	return asRelease(applied)
}

// upgrade creates the next revision of the release.
func (i *Installer) upgrade(ctx context.Context, p *planned, o Options) (*release.Release, error) {
	upgrade := action.NewUpgrade(i.helm)
	upgrade.Namespace = i.namespace
	upgrade.ResetValues = true // the plan's values hold the earlier ones
	upgrade.ForceConflicts = o.ForceConflicts
	upgrade.WaitStrategy, upgrade.Timeout = kube.HookOnlyStrategy, deadRelease
	upgrade.MaxHistory = historyMax
	applied, err := upgrade.RunWithContext(ctx, ReleaseName, p.chart, p.values)
	if err != nil {
		return nil, err
	}
	return asRelease(applied)
}
