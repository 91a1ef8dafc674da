package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/culvert-dev/culvert/node/failure"
)

// reachTimeout is how long the API server may take to say its version.
const reachTimeout = 15 * time.Second

// Installer works on the gateway of one namespace in one cluster. It is not safe for concurrent use.
type Installer struct {
	namespace string
	getter    genericclioptions.RESTClientGetter
	host      string // of the API server, for messages
	typed     kubernetes.Interface
	dynamic   dynamic.Interface
	helm      *action.Configuration
	out       *progress
}

// New returns an Installer for the cluster and user of getter. Steps done and waited for are written
// to progressTo, one line each. It sends nothing yet.
func New(getter genericclioptions.RESTClientGetter, namespace string, progressTo io.Writer) (*Installer, error) {
	config, err := clientConfig(getter)
	if err != nil {
		return nil, failure.New(failure.Usage, fmt.Errorf("kubeconfig: %w", err),
			"name one with --kubeconfig or $KUBECONFIG, and its context with --context")
	}
	// Questions about rights come in a burst; client-go's 5 a second would be felt.
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 50, 100
	typed, errTyped := kubernetes.NewForConfig(config)
	untyped, errDynamic := dynamic.NewForConfig(config)
	if err := errors.Join(errTyped, errDynamic); err != nil {
		return nil, failure.New(failure.Usage, fmt.Errorf("kubeconfig: %w", err), "")
	}
	helm := action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler))
	if err := helm.Init(getter, namespace, "secret"); err != nil {
		return nil, fmt.Errorf("prepare Helm: %w", err)
	}
	return &Installer{
		namespace: namespace, getter: getter, host: config.Host,
		typed: typed, dynamic: untyped, helm: helm, out: &progress{w: progressTo},
	}, nil
}

// clientConfig returns the configuration of getter; none at all is an error here, where kubectl tries
// a server on this machine.
func clientConfig(getter genericclioptions.RESTClientGetter) (*rest.Config, error) {
	config, err := getter.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	raw, err := getter.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return nil, err
	}
	if len(raw.Clusters) == 0 && strings.HasSuffix(config.Host, "localhost:8080") {
		return nil, errors.New("there is none, or it names no cluster")
	}
	return config, nil
}

// serverVersion asks the API server for its version, which also tells whether it can be reached and
// accepts the user, and refuses one too old for the chart.
func (i *Installer) serverVersion(ctx context.Context) (*common.KubeVersion, error) {
	defer i.out.waiting("the API server " + i.host + " to answer")()
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	info, err := discovery.ToDiscoveryInterfaceWithContext(i.typed.Discovery()).ServerVersionWithContext(ctx)
	if err != nil {
		return nil, i.explain("ask the API server for its version", err)
	}
	got, err := version.ParseGeneric(info.GitVersion)
	if err != nil {
		return nil, fmt.Errorf("the API server %s calls its version %q: %w", i.host, info.GitVersion, err)
	}
	if got.LessThan(version.MustParseGeneric(oldestKubernetes)) {
		return nil, failure.Newf(failure.General, "the cluster runs Kubernetes %s: Culvert needs %s or newer", info.GitVersion, oldestKubernetes)
	}
	return common.ParseKubeVersion(info.GitVersion)
}
