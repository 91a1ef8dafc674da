package kube

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/dynamic"
	_ "k8s.io/client-go/plugin/pkg/client/auth/exec" // credential plugins of a kubeconfig
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/connrotation"

	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Options say which cluster and as whom; the fields are kubectl's flags of the same names. The zero
// value is the current context of the default kubeconfig. It travels as JSON over a socket between
// processes of one user, never in arguments: it may hold a token.
type Options struct {
	Kubeconfig string                    `json:"kubeconfig,omitempty"`
	Overrides  clientcmd.ConfigOverrides `json:"overrides"`
	// CulvertNamespace is where the gateway and the Peers are; "" means v1alpha1.DefaultNamespace.
	CulvertNamespace string `json:"culvertNamespace,omitempty"`
}

// BindFlags adds kubectl's usual flags to fs.
func (o *Options) BindFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "path of the kubeconfig file (default $KUBECONFIG, else ~/.kube/config)")
	flags := clientcmd.RecommendedConfigOverrideFlags("")
	flags.ContextOverrideFlags.Namespace.ShortName = "n"
	flags.ContextOverrideFlags.Namespace.Description = "namespace whose services answer to their bare names (default: the context's)"
	clientcmd.BindOverrideFlags(&o.Overrides, fs, flags)
	fs.StringVar(&o.CulvertNamespace, "culvert-namespace", v1alpha1.DefaultNamespace, "namespace of the gateway and its Peers")
}

// Client talks to one cluster as one user. Safe for concurrent use.
type Client struct {
	config    *rest.Config
	dynamic   dynamic.Interface
	dialled   *dialled
	namespace string // where Peers are

	connections *connrotation.ConnectionTracker // those of requests, for Reconnect
	epoch       *epoch

	// Context and Cluster are the kubeconfig's names, for people.
	Context string
	Cluster string
	// Extension is the kubeconfig's "culvert.dev" extension of the cluster, JSON; nil for none.
	Extension []byte
	// UserNamespace is the namespace that the connection's bare names live in.
	UserNamespace string
}

// Load reads the kubeconfig and prepares a client; it sends nothing.
func Load(o Options) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &o.Overrides)
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, configFailure(err, o)
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, configFailure(err, o)
	}
	userNamespace, _, err := loader.Namespace()
	if err != nil {
		return nil, configFailure(err, o)
	}
	c, err := newClient(config, o.CulvertNamespace)
	if err != nil {
		return nil, configFailure(err, o)
	}
	c.UserNamespace = userNamespace
	c.Context, c.Cluster = contextNames(raw, o.Overrides)
	c.Extension = extension(raw, c.Cluster)
	return c, nil
}

func contextNames(raw clientcmdapi.Config, o clientcmd.ConfigOverrides) (context, cluster string) {
	context = raw.CurrentContext
	if o.CurrentContext != "" {
		context = o.CurrentContext
	}
	if entry := raw.Contexts[context]; entry != nil {
		cluster = entry.Cluster
	}
	if o.Context.Cluster != "" {
		cluster = o.Context.Cluster
	}
	return context, cluster
}

func newClient(config *rest.Config, namespace string) (*Client, error) {
	if namespace == "" {
		namespace = v1alpha1.DefaultNamespace
	}
	seen := newDialled()
	config = rest.CopyConfig(config)
	config.UserAgent = "culvert/" + version.Version
	config.QPS, config.Burst = -1, -1 // a handful of requests; the API server has its own fairness
	config.WarningHandler = rest.NoWarnings{}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	tracked := connrotation.NewDialer(connrotation.DialFunc(seen.wrap(dialer.DialContext)))
	config.Dial = tracked.DialContext
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Client{
		config: config, dynamic: client, dialled: seen, namespace: namespace,
		connections: tracked.ConnectionTracker, epoch: newEpoch(),
	}, nil
}

// Host is the API server's URL as the kubeconfig has it, without a password in it.
func (c *Client) Host() string {
	if u, err := url.Parse(c.config.Host); err == nil {
		return u.Redacted()
	}
	return "at the address in the kubeconfig"
}

// Namespace is where the gateway and the Peers are.
func (c *Client) Namespace() string { return c.namespace }

func configFailure(err error, o Options) error {
	path := o.Kubeconfig
	if path == "" {
		path = os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	}
	if path == "" {
		path = clientcmd.RecommendedHomeFile
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return failure.New(failure.Usage, fmt.Errorf("kubeconfig: %w", err), "name an existing file with --kubeconfig")
	case clientcmd.IsEmptyConfig(err):
		return failure.Newf(failure.Usage, "no cluster configured: %s holds no current context", path).
			WithHint("set KUBECONFIG or --kubeconfig, or choose a context with --context")
	}
	return failure.New(failure.Usage, fmt.Errorf("kubeconfig %s: %w", path, err), "")
}
