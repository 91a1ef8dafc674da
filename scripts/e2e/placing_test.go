//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/agents"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy"
)

// askVariable holds, for this test's own program started once more on the workstation, what it is to do
// there instead of testing: only the workstation has a way to the API server.
const askVariable = "CULVERT_E2E_ASK"

// agentAsk is what is to be done with agents on the workstation.
type agentAsk struct {
	Options  kube.Options
	Limit    string     // a duration, of all of it
	Workload string     // to put an agent into, if not ""
	List     []string   // namespaces whose agents to list, if not nil
	Follow   kube.Agent // to watch, else: the agent that was placed, if there is one
	Until    kube.AgentPhase
	Enrol    bool // at the agent, and leave it again
	// Keep names a file for the pod of the first agent for Workload, which is kept until a second one serves instead.
	Keep string
}

// agentAnswer is what has come of it.
type agentAnswer struct {
	Agent   kube.Agent
	Said    []string
	Took    time.Duration // until the agent was placed; if kept, from the loss of the first to the second
	PodUID  string        // as an agent says that has been enrolled at
	List    []kube.AgentThere
	Failure *failure.Failure
}

// answerHere does what is asked for and prints the answer. It returns an exit code.
func answerHere(text string) int {
	var question agentAsk
	if err := json.Unmarshal([]byte(text), &question); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var a agentAnswer
	a.Failure = failure.Of(a.to(question))
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// to does what is asked for.
func (a *agentAnswer) to(question agentAsk) error {
	client, err := kube.Load(question.Options)
	if err != nil {
		return err
	}
	limit, err := time.ParseDuration(question.Limit)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if question.Keep != "" {
		return a.keep(ctx, client, question)
	}
	if question.Workload != "" {
		begin := time.Now()
		if question.Follow, err = a.place(ctx, client, question.Workload); err != nil {
			return err
		}
		a.Took = time.Since(begin)
	}
	if question.Enrol {
		a.Agent = question.Follow
		return a.enrol(ctx, client)
	}
	if question.List != nil {
		a.List, err = client.Agents(ctx, question.List...)
		return err
	}
	return a.follow(ctx, client, question)
}

// enrol gets to know the agent, which takes a moment to listen after it was started, and says goodbye.
func (a *agentAnswer) enrol(ctx context.Context, client *kube.Client) error {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return err
	}
	request := enrol.Request{
		Connection: "e2e", PublicKey: key.PublicKey(),
		Node: []netip.Addr{netip.MustParseAddr("245.7.7.6")}, Agent: []netip.Addr{netip.MustParseAddr("245.7.7.9")},
	}
	for {
		err := a.exchange(ctx, client, request)
		if err == nil || ctx.Err() != nil {
			return err
		}
		a.Said = append(a.Said, err.Error())
		time.Sleep(50 * time.Millisecond)
	}
}

// keep has an agent kept until a second one serves instead of the first.
func (a *agentAnswer) keep(ctx context.Context, client *kube.Client, question agentAsk) error {
	workload, err := policy.ParseWorkload(question.Workload)
	if err != nil {
		return err
	}
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var first, last agents.State
	var lost time.Time
	agents.New(agents.Config{
		Workload: workload, Namespace: client.UserNamespace, Cluster: client,
		Request: enrol.Request{
			Connection: "e2e-kept", PublicKey: key.PublicKey(),
			Node: []netip.Addr{netip.MustParseAddr("245.7.7.10")}, Agent: []netip.Addr{netip.MustParseAddr("245.7.7.13")},
		},
		OnChange: func(s agents.State) {
			a.Said = append(a.Said, fmt.Sprintf("%s in %s: %v", s.Phase, s.Agent.Pod, s.Err))
			switch last = s; {
			case s.Phase != agents.Up && first.Phase == agents.Up && lost.IsZero():
				lost = time.Now()
			case s.Phase != agents.Up:
			case first.Phase != agents.Up:
				first = s
				if err = os.WriteFile(question.Keep, []byte(s.Agent.Pod), 0o600); err != nil {
					stop()
				}
			case s.Agent != first.Agent:
				a.Agent, a.Took = s.Agent, time.Since(lost)
				stop()
			}
		},
	}).Run(ctx)
	if a.Took == 0 && err == nil {
		err = fmt.Errorf("no second agent, first %+v, at last %+v", first, last)
	}
	return err
}

// exchange enrols once.
func (a *agentAnswer) exchange(ctx context.Context, client *kube.Client, request enrol.Request) error {
	conn, err := client.DialAgent(ctx, a.Agent, a.Agent.ControlPort)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // what was said counts
	got, err := enrol.Enrol(ctx, conn, request)
	if err != nil {
		return err
	}
	a.PodUID = got.PodUID
	return enrol.Bye(ctx, conn, request)
}

// follow watches an agent until it is as far as was asked for, and returns why it cannot be used then.
func (a *agentAnswer) follow(ctx context.Context, client *kube.Client, question agentAsk) error {
	a.Agent = question.Follow
	if question.Until == "" {
		return nil
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var last kube.AgentState
	client.WatchAgent(watching, a.Agent, kube.Watch[kube.AgentState]{
		Changed: func(s *kube.AgentState) {
			if last = *s; last.Phase == question.Until {
				stop()
			}
		},
		Trouble: func(err error) { fmt.Fprintln(os.Stderr, "trouble:", err) },
	})
	if last.Phase != question.Until {
		return fmt.Errorf("the agent is not %s: %+v", question.Until, last)
	}
	return a.Agent.Failure(last)
}

// place goes the whole way from a workload's name to an agent.
func (a *agentAnswer) place(ctx context.Context, client *kube.Client, name string) (kube.Agent, error) {
	workload, err := policy.ParseWorkload(name)
	if err != nil {
		return kube.Agent{}, err
	}
	found, err := client.Resolve(ctx, workload, client.UserNamespace)
	if err != nil {
		return kube.Agent{}, err
	}
	pod, err := client.PickPod(ctx, found, "")
	if err != nil {
		return kube.Agent{}, err
	}
	return client.PlaceAgent(ctx, pod, func(text string) { a.Said = append(a.Said, text) })
}

// asks has the workstation do what is asked for, as the administrator unless a kubeconfig is named. That
// it could not be asked is a failure as well.
func (l *lab) asks(question agentAsk) agentAnswer {
	if question.Limit == "" {
		question.Limit = "40s"
	}
	if question.Options.Kubeconfig == "" {
		question.Options.Kubeconfig = l.Kubeconfig
	}
	var a agentAnswer
	text, err := json.Marshal(question)
	if err != nil {
		return agentAnswer{Failure: failure.Of(err)}
	}
	program, err := os.Executable()
	if err != nil {
		return agentAnswer{Failure: failure.Of(err)}
	}
	r := l.WSEnv(2*time.Minute, []string{askVariable + "=" + string(text)}, program)
	if err := json.Unmarshal([]byte(r.Out), &a); err != nil {
		return agentAnswer{Failure: failure.Newf(failure.General, "ask the workstation: %v: %s", err, r)}
	}
	return a
}
