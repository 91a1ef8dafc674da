package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/culvert-dev/culvert/node/failure"
)

// explain turns an error of the API into a failure that says what could not be done and what to do
// next. doing is a phrase such as "create the namespace culvert".
func (i *Installer) explain(doing string, err error) error {
	var known *failure.Failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: interrupted", doing)
	case apierrors.IsUnauthorized(err):
		return failure.New(failure.Permission, fmt.Errorf("%s: the API server %s does not accept your credentials: %w", doing, i.host, err),
			"log in again (expired token or certificate?), then try `kubectl get namespaces` with the same kubeconfig")
	case apierrors.IsForbidden(err):
		return failure.New(failure.Permission, fmt.Errorf("%s: not permitted: %w", doing, err),
			"run it as a cluster administrator, or ask one for the right named above")
	case apierrors.IsConflict(err):
		return failure.New(failure.General, fmt.Errorf("%s: another hand changed the same fields: %w", doing, err),
			"look at the difference with --dry-run; --force-conflicts takes the fields over")
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		return failure.New(failure.Usage, fmt.Errorf("%s: %w", doing, err), "")
	case i.unreachable(err):
		return failure.New(failure.Unreachable, fmt.Errorf("%s: the API server %s does not answer: %w", doing, i.host, innermost(err)),
			"is the VPN or network that leads to it up? `kubectl version` must work with the same kubeconfig")
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// unreachable reports whether err comes from the way to the API server and not from the server.
func (i *Installer) unreachable(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return false
	}
	var transport *url.Error
	var network net.Error
	return errors.As(err, &transport) || errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) ||
		strings.Contains(err.Error(), "cluster unreachable")
}

// innermost drops the URL that net/http wraps around a transport error: the host is named already.
func innermost(err error) error {
	var transport *url.Error
	if errors.As(err, &transport) {
		return transport.Err
	}
	return err
}

// apiMessage returns what the API server said, without what was put around it on the way here.
func apiMessage(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status().Message
	}
	return err.Error()
}
