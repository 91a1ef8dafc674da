package report

import (
	"errors"
	"io"
	"net"
	"reflect"
	"testing"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
)

func TestConversation(t *testing.T) {
	a, b := net.Pipe()
	node, command := NewChannel(a), NewChannel(b)
	sent := Request{Name: "x", Kube: kube.Options{Kubeconfig: "/k"}, TimeoutSeconds: 3, Interactive: true}
	sent.Kube.Overrides.AuthInfo.Token = "secret"
	done := make(chan error, 1)
	go func() { // ends after the last message
		err := command.Send(sent)
		for err == nil {
			var m Message
			if err = command.Receive(&m); err != nil || m.Result != nil {
				if m.Result == nil || m.Result.Failure.Code != failure.Conflict || m.Result.Failure.Hint != "hint" {
					err = errors.Join(err, errors.New("the result is not what was sent"))
				}
				break
			}
			if m.Question != "" {
				err = command.Send(Answer{Yes: true})
			}
		}
		done <- errors.Join(err, command.Close())
	}()
	var got Request
	if err := node.Receive(&got); err != nil || !reflect.DeepEqual(got, sent) {
		t.Errorf("%+v, %v, want %+v", got, err, sent)
	}
	node.Progress("step %d", 1)
	var answer Answer
	if err := errors.Join(node.Send(Message{Question: "?"}), node.Receive(&answer)); err != nil || !answer.Yes {
		t.Errorf("%+v, %v", answer, err)
	}
	if err := node.Send(Message{Result: &Result{Failure: failure.New(failure.Conflict, errors.New("no"), "hint")}}); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := node.Receive(&answer); !errors.Is(err, io.EOF) {
		t.Errorf("after the other side has closed: %v", err)
	}
	node.Progress("nobody hears this") // and nothing happens
}
