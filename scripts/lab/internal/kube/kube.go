// Package kube is the little of the Kubernetes API the lab itself needs: is it
// ready, what do nodes and workloads say. Everything else is done by kubectl.
package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
)

// Client talks to one API server from inside a host.
type Client struct {
	base string
	http *http.Client
}

// Credentials are PEM blocks.
type Credentials struct{ CA, Cert, Key []byte }

// New returns a client of the API server at address (host:port) whose
// connections leave from the network namespace of process pid.
func New(address string, pid int, c Credentials) (*Client, error) {
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(c.CA) {
		return nil, errors.New("the cluster's authority is no PEM certificate")
	}
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = host.Do(pid, host.Net, func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
	return &Client{
		base: "https://" + address,
		http: &http.Client{
			Timeout: 5 * time.Second,
			Transport: &http.Transport{
				DialContext:     dial,
				TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
			},
		},
	}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return body, err
}

func (c *Client) list(ctx context.Context, path string, into any) error {
	raw, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// Ready returns nil once the API server says it is ready.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.get(ctx, "/readyz")
	return err
}

// Node is what the lab looks at of a node.
type Node struct {
	Name     string
	PodCIDRs []string
	Ready    bool
	Reason   string // of the Ready condition, when it is not true
}

// Nodes lists the nodes by name.
func (c *Client) Nodes(ctx context.Context) (map[string]Node, error) {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ PodCIDRs []string }
			Status   struct {
				Conditions []struct{ Type, Status, Message string }
			}
		}
	}
	if err := c.list(ctx, "/api/v1/nodes", &list); err != nil {
		return nil, err
	}
	nodes := map[string]Node{}
	for _, item := range list.Items {
		n := Node{Name: item.Metadata.Name, PodCIDRs: item.Spec.PodCIDRs}
		for _, condition := range item.Status.Conditions {
			if condition.Type == "Ready" {
				n.Ready, n.Reason = condition.Status == "True", condition.Message
			}
		}
		nodes[n.Name] = n
	}
	return nodes, nil
}

// Workload is one controller and how many of its pods are ready.
type Workload struct {
	Name          string `json:"name"` // namespace/name
	Ready, Wanted int
}

// Workloads lists deployments and stateful sets of every namespace.
func (c *Client) Workloads(ctx context.Context) ([]Workload, error) {
	var all []Workload
	for _, kind := range []string{"deployments", "statefulsets"} {
		var list struct {
			Items []struct {
				Metadata struct{ Namespace, Name string }
				Spec     struct{ Replicas int }
				Status   struct{ ReadyReplicas int }
			}
		}
		if err := c.list(ctx, "/apis/apps/v1/"+kind, &list); err != nil {
			return nil, err
		}
		for _, item := range list.Items {
			all = append(all, Workload{
				Name:  item.Metadata.Namespace + "/" + item.Metadata.Name,
				Ready: item.Status.ReadyReplicas, Wanted: item.Spec.Replicas,
			})
		}
	}
	return all, nil
}
