//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

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
}

// agentAnswer is what has come of it.
type agentAnswer struct {
	Agent   kube.Agent
	Said    []string
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
	if question.Workload != "" {
		if question.Follow, err = a.place(ctx, client, question.Workload); err != nil {
			return err
		}
	}
	if question.List != nil {
		a.List, err = client.Agents(ctx, question.List...)
		return err
	}
	return a.follow(ctx, client, question)
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

// asks has the workstation do what is asked for, as the administrator unless a kubeconfig is named.
func (l *lab) asks(t *testing.T, question agentAsk) agentAnswer {
	t.Helper()
	if question.Limit == "" {
		question.Limit = "40s"
	}
	if question.Options.Kubeconfig == "" {
		question.Options.Kubeconfig = l.Kubeconfig
	}
	text, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := l.WSEnv(2*time.Minute, []string{askVariable + "=" + string(text)}, program)
	var a agentAnswer
	if err := json.Unmarshal([]byte(r.Out), &a); err != nil {
		t.Fatalf("%v: %s", err, r)
	}
	return a
}
