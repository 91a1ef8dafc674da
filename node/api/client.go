package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// ErrNotRunning is matched by the errors of a [Client] whose connection does not run.
var ErrNotRunning = errors.New("not running")

// Client speaks to the connection behind one socket.
type Client struct{ http *http.Client }

// NewClient returns a client of the socket at path; nothing is dialled yet.
func NewClient(path string) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Status asks for a snapshot.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Plan asks for the plan in force.
func (c *Client) Plan(ctx context.Context) (Plan, error) { return get[Plan](ctx, c, "/v1/plan") }

// Why asks how programs on this host reach a name or an address.
func (c *Client) Why(ctx context.Context, target string) (Why, error) {
	return get[Why](ctx, c, "/v1/why?target="+url.QueryEscape(target))
}

// get asks for a value.
func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	body, err := c.do(ctx, http.MethodGet, path)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("read the answer to %s: %w", path, err)
	}
	return v, nil
}

// Quit ends the connection; when it returns nil the host is restored.
func (c *Client) Quit(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodPost, "/v1/quit")
	return err
}

// maxAnswer bounds an answer in bytes.
const maxAnswer = 16 << 20

func (c *Client) do(ctx context.Context, method, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://culvert"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case err != nil:
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}
