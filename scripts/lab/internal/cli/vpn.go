package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/vpn"
)

func (a *app) vpn() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vpn",
		Short: "switch the VPN on and off in a running lab",
		Example: `  lab vpn up                     # what lab up was asked for, or what was on last
  lab vpn up wireguard --routes 10.0.0.0/8,172.16.0.0/12
  lab vpn down`,
		Args: needArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.vpnUp(), a.vpnDown())
	return cmd
}

func (a *app) vpnUp() *cobra.Command {
	var routes string
	cmd := &cobra.Command{
		Use:   "up [" + strings.Join(state.VPNKinds[1:], "|") + "]",
		Short: "switch the VPN on; returns when its routes are there",
		Long: `up switches the VPN on: of the kind named, else of the last one, else of the one
lab up was asked for. Safe to repeat; with another kind or other routes it
switches over.`,
		Example: `  lab vpn up
  lab vpn up openvpn --routes 10.130.0.0/16,10.20.0.0/16,10.50.0.0/16`,
		Args: needArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeVPN(func(l *state.Lab) error {
				kind, prefixes := vpnDefaults(l)
				if len(args) == 1 {
					kind = args[0]
				}
				if kind == state.VPNNone {
					return usageError{fmt.Errorf("lab %q had no VPN so far: name its kind, one of %s", l.Name, strings.Join(state.VPNKinds[1:], ", "))}
				}
				if routes != "" {
					var err error
					if prefixes, err = state.ParsePrefixes(routes); err != nil {
						return usageError{fmt.Errorf("--routes: %w", err)}
					}
				}
				progress("%s up, taking %s", kind, text(prefixes))
				return vpn.Up(cmd.Context(), l, kind, prefixes)
			})
		},
	}
	cmd.Flags().StringVar(&routes, "routes", "", "prefixes the VPN takes (default: those of last time)")
	return cmd
}

func vpnDefaults(l *state.Lab) (kind string, routes []netPrefix) {
	kind, routes = l.Options.VPN, l.Options.VPNRoutes
	if l.VPN.Kind != state.VPNNone {
		kind, routes = l.VPN.Kind, l.VPN.Routes
	}
	return kind, routes
}

func (a *app) vpnDown() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "switch the VPN off; returns when its interface is gone",
		Example: "  lab vpn down",
		Args:    needArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changeVPN(func(l *state.Lab) error { return vpn.Down(cmd.Context(), l) })
		},
	}
}

func (a *app) changeVPN(change func(*state.Lab) error) error {
	if err := requireRoot(); err != nil {
		return err
	}
	if err := state.CheckName(a.name); err != nil {
		return usageError{err}
	}
	unlock, err := state.Lock(a.name, true)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := a.open()
	if err != nil {
		return err
	}
	return change(l)
}
