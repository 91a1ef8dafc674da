package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/scripts/lab/internal/cluster"
	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

func (a *app) join() *cobra.Command {
	return &cobra.Command{
		Use:   "join OTHER",
		Short: "let the workstation of this lab reach the API server of another lab",
		Long: `join links the routers of two labs and prints the path of a kubeconfig with which
the workstation of this lab reaches the cluster of the OTHER one. The two may have
the same addresses throughout: the OTHER lab's first node is known here by an
address of its own, and nothing else of that lab is reached. Safe to repeat, as
after the OTHER lab was down; the link goes with either lab.`,
		Example: `  lab up --name a --light && lab up --name b --light
  lab --name a exec ws -- culvert connect --name b --kubeconfig $(lab --name a join b)`,
		Args: needArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := requireRoot(); err != nil {
				return err
			}
			if err := state.CheckName(args[0]); err != nil {
				return usageError{err}
			}
			if args[0] == a.name {
				return usageError{fmt.Errorf("lab %q cannot be joined with itself", a.name)}
			}
			path, err := joinLabs(cmd.Context(), a.name, args[0])
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
}

// joinLabs returns the path of the kubeconfig.
func joinLabs(ctx context.Context, name, other string) (string, error) {
	unlock, err := state.Lock(name, true)
	if err != nil {
		return "", err
	}
	defer unlock()
	near, err := state.Open(name)
	if err != nil {
		return "", err
	}
	far, err := state.Open(other)
	if err != nil {
		return "", err
	}
	n, err := joinNumber(near, other)
	if err != nil {
		return "", err
	}
	if err := link(ctx, n, near, far); err != nil {
		return "", err
	}
	return cluster.JoinedKubeconfig(near, far, topology.JoinNode(n))
}

// link joins the routers of two labs.
func link(ctx context.Context, n int, near, far *state.Lab) error {
	var errs [2]error
	var routers [2]state.Host
	for i, l := range []*state.Lab{near, far} {
		routers[i], errs[i] = l.Host(topology.Router)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if err := topology.Join(n, routers[0].Holder.PID, routers[1].Holder.PID); err != nil {
		return err
	}
	for i, l := range []*state.Lab{near, far} {
		rules := []string{topology.NearRules(n), topology.FarRules(n)}[i]
		if _, err := launch.Output(ctx, l, topology.Router, strings.NewReader(rules), "nft", "-f", "-"); err != nil {
			return err
		}
	}
	return nil
}

// joinNumber returns the number of near's join with another lab, a new one that
// no lab uses if there is none so far.
func joinNumber(near *state.Lab, other string) (int, error) {
	unlock, err := state.Lock("", true)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if n, ok := near.Joins[other]; ok {
		return n, nil
	}
	var used []int
	for _, name := range state.Names() {
		l, err := state.Open(name)
		if err != nil {
			return 0, err
		}
		for _, n := range l.Joins {
			used = append(used, n)
		}
	}
	n := 0
	for slices.Contains(used, n) {
		n++
	}
	if n == topology.MaxJoins {
		return 0, fmt.Errorf("the labs of this machine have %d joins, and there is no room for more", n)
	}
	if near.Joins == nil {
		near.Joins = map[string]int{}
	}
	near.Joins[other] = n
	return n, near.Save()
}
