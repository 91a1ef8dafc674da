package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/culvert-dev/culvert/deploy"
	"github.com/culvert-dev/culvert/node/failure"
)

// explain turns an error of the API into a failure that says what could not be done, and what to do
// next. doing is a phrase such as "read the team's Policy".
func (c *Client) explain(doing string, err error) error {
	var f *failure.Failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f) || errors.Is(err, context.Canceled):
		return err
	case apierrors.IsUnauthorized(err):
		return failure.New(failure.Permission, fmt.Errorf("%s: the API server %s does not accept the credentials of context %q: %w", doing, c.Host(), c.Context, err),
			"log in again (expired token or certificate?), then try `kubectl get namespaces` with the same kubeconfig")
	case apierrors.IsForbidden(err):
		return c.forbidden(doing, err)
	case apierrors.IsNotFound(err) && missingResource(err):
		return c.notInstalled(doing)
	case isAPIStatus(err) && !serverFault(err):
		return failure.New(failure.General, fmt.Errorf("%s: %w", doing, err), "")
	case isAPIStatus(err):
		return failure.New(failure.Unreachable, fmt.Errorf("%s: the API server %s answers with an error: %w", doing, c.Host(), err), "")
	case strings.Contains(err.Error(), "getting credentials"):
		return failure.New(failure.Permission, fmt.Errorf("%s: the credential plugin of context %q failed: %w", doing, c.Context, err),
			"run it by hand; it runs as you, with your environment, without a terminal")
	case certificateRefused(err):
		return failure.New(failure.Permission, fmt.Errorf("%s: the API server %s does not accept the client certificate of context %q: %w", doing, c.Host(), c.Context, innermost(err)),
			"log in again (expired?), then try `kubectl get namespaces` with the same kubeconfig")
	case untrusted(err):
		return failure.New(failure.Unreachable, fmt.Errorf("%s: what answers at %s is not the API server that the kubeconfig trusts: %w", doing, c.Host(), innermost(err)),
			"is certificate-authority-data of the current cluster, or does a proxy or VPN answer in its place?")
	}
	return failure.New(failure.Unreachable, fmt.Errorf("%s: the API server %s does not answer: %w", doing, c.Host(), innermost(err)),
		"is the VPN or network that leads to it up? `kubectl version` must work with the same kubeconfig")
}

func isAPIStatus(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// serverFault reports whether the API server says that it cannot do now what it could do else.
func serverFault(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && (status.Status().Code >= 500 || status.Status().Code == http.StatusTooManyRequests)
}

// certificateRefused reports whether the server ended the handshake because of our certificate.
func certificateRefused(err error) bool {
	var alert tls.AlertError
	if !errors.As(err, &alert) {
		return strings.Contains(err.Error(), "remote error: tls: ") && strings.Contains(err.Error(), "certificate")
	}
	return strings.Contains(alert.Error(), "certificate")
}

// untrusted reports whether we ended the handshake because of the server's certificate.
func untrusted(err error) bool {
	var verification *tls.CertificateVerificationError
	return errors.As(err, &verification)
}

// missingResource reports whether a 404 means that the CRDs or the gateway's namespace are absent, not
// one object.
func missingResource(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details == nil || details.Name == "" || details.Kind == "namespaces"
}

func (c *Client) notInstalled(doing string) error {
	return failure.Newf(failure.GatewayState, "%s: the gateway is not installed in this cluster (context %q)", doing, c.Context).
		WithHint("an administrator installs it once: culvert gateway install")
}

// forbidden names the missing verb and prints the Role that a user needs.
func (c *Client) forbidden(doing string, err error) error {
	if refusedByAdmission(err) {
		return failure.New(failure.Refused, fmt.Errorf("%s: %w", doing, err), "")
	}
	return failure.New(failure.Permission, fmt.Errorf("%s: not permitted: %w", doing, err), c.roleHint())
}

// roleHint is the Role that a user needs, to be handed to an administrator.
func (c *Client) roleHint() string {
	return fmt.Sprintf("ask an administrator to bind you to this Role in namespace %s (the chart makes it):\n\n%s",
		c.namespace, deploy.UserRole(c.namespace))
}

// notAuthorised reports whether the user lacks a right, in the words that the API server has for it
// (k8s.io/apiserver, responsewriters.ForbiddenMessage). Admission answers 403 as well.
func notAuthorised(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ") && strings.Contains(err.Error(), ` resource "`)
}

func refusedByAdmission(err error) bool {
	return strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
}

// innermost drops the URL that net/http wraps around a transport error; it repeats what is said.
func innermost(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns
	}
	return err
}
