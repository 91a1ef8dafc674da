package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// Names asked for once each are endpoints of a headless service without pods.
const (
	nameService  = "first"
	firstAddress = "10.132.128.0"
	nameRounds   = 10
	namesPerTurn = 50  // asked one after the other, before it is another resolver's turn
	perSlice     = 500 // endpoints of an EndpointSlice; at most 1,000
)

// question is who is asked, and whether the VPN hides the pods meanwhile.
type question struct {
	who    string
	host   string
	plain  bool // asked is the cluster's resolver, not that of the host
	hidden bool
}

// questions of a round. The first of each state of the VPN is what the others of that state are compared
// with.
var questions = []question{
	{"the cluster's resolver, through the tunnel", "ws", true, false},
	{"the host's resolver, which answers with real addresses", "ws", false, false},
	{"the cluster's resolver, on the node itself", "node1", true, false},
	{"the cluster's resolver, through the tunnel, while the VPN is up", "ws", true, true},
	{"the host's resolver, which answers with virtual addresses", "ws", false, true},
}

// names makes the table of first resolutions.
func names(l *labctl.Lab) (string, error) {
	note := fmt.Sprintf("medians of %d rounds of %d names, in brackets the quartiles", nameRounds, namesPerTurn) + load()
	n, err := makeNames(l, len(kinds)*nameRounds*len(questions)*namesPerTurn)
	defer n.drop()
	if err != nil {
		return "", err
	}
	columns, rows := []string{"p50 of a name's first resolution"}, make([][]string, len(questions))
	for i, q := range questions {
		rows[i] = []string{q.who}
	}
	for _, k := range kinds {
		columns = append(columns, k.name, "to plain")
		took, err := n.firsts(k)
		if err != nil {
			return "", fmt.Errorf("%s: %w", k.name, err)
		}
		for i, q := range questions {
			base := slices.IndexFunc(questions, func(o question) bool { return o.hidden == q.hidden })
			cell := ""
			if i != base {
				cell = ratio(took[i], took[base])
			}
			rows[i] = append(rows[i], ms(middle(took[i])), cell)
			progress("names: %v", rows[i])
		}
	}
	return render(note, columns, rows), nil
}

// firsts asks each question in each round and returns the medians in milliseconds, by question and round.
func (n *newNames) firsts(k kind) ([][]float64, error) {
	h, err := hide(n.lab, k)
	if err != nil {
		return nil, err
	}
	defer h.quit()
	took := make([][]float64, len(questions))
	for range nameRounds {
		for _, i := range order() {
			q := questions[i]
			if err := h.turn(q.hidden); err != nil {
				return nil, err
			}
			p50, err := n.ask(q, h.kind)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", q.who, err)
			}
			took[i] = append(took[i], p50)
		}
	}
	return took, nil
}

// order returns the numbers of the questions in an order that differs each time, those with the VPN down
// first.
func order() []int {
	numbers := rand.Perm(len(questions))
	slices.SortStableFunc(numbers, func(a, b int) int {
		switch {
		case questions[a].hidden == questions[b].hidden:
			return 0
		case questions[b].hidden:
			return -1
		}
		return 1
	})
	return numbers
}

// newNames are names that nobody has asked for yet.
type newNames struct {
	lab    *labctl.Lab
	server string // the cluster's resolver
	next   int
}

// makeNames makes count names and waits until the cluster's resolver knows them.
func makeNames(l *labctl.Lab, count int) (*newNames, error) {
	n := &newNames{lab: l}
	r := l.Kubectl("-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}")
	if n.server = strings.TrimSpace(r.Out); n.server == "" {
		return n, fmt.Errorf("find the cluster's resolver: %s", r)
	}
	items := []any{map[string]any{
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": nameService},
		"spec": map[string]any{"clusterIP": "None", "ports": []any{map[string]any{"name": "reached", "port": 7002}}},
	}}
	slices := (count + perSlice - 1) / perSlice
	for i := range slices {
		items = append(items, endpoints(i))
	}
	list, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		return n, err
	}
	if err := l.KubectlInput(string(list), "create", "-f", "-").OK(); err != nil {
		return n, fmt.Errorf("make %d names: %w", count, err)
	}
	return n, n.known(slices)
}

// endpoints is the i-th EndpointSlice: perSlice names, and one more by which to see that it is known.
func endpoints(i int) map[string]any {
	list := []any{}
	a := netip.MustParseAddr(firstAddress)
	for range i * perSlice {
		a = a.Next()
	}
	for j := range perSlice {
		list = append(list, map[string]any{"addresses": []string{a.String()}, "hostname": fmt.Sprintf("e%d", i*perSlice+j)})
		a = a.Next()
	}
	list = append(list, map[string]any{"addresses": []string{"10.132.255.254"}, "hostname": fmt.Sprintf("slice%d", i)})
	return map[string]any{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  map[string]any{"name": fmt.Sprintf("%s-%d", nameService, i), "labels": map[string]string{"kubernetes.io/service-name": nameService}},
		"ports":     []any{map[string]any{"name": "reached", "port": 7002}},
		"endpoints": list,
	}
}

// known waits until the cluster's resolver has all EndpointSlices.
func (n *newNames) known(slices int) error {
	for i := range slices {
		name := fmt.Sprintf("slice%d.%s.default.svc.cluster.local.", i, nameService)
		err := await(name, func() error {
			r := n.lab.Host(10*time.Second, "node1", "dig", "+short", "@"+n.server, name)
			if strings.TrimSpace(r.Out) == "" {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *newNames) drop() {
	n.lab.Kubectl("delete", "service", nameService, "--ignore-not-found")
	n.lab.Kubectl("delete", "endpointslices", "-l", "kubernetes.io/service-name="+nameService)
}

// What dig prints of an answer and of its time.
var (
	digAnswer = regexp.MustCompile(`(?m)^e\d+\..*\sIN\s+A\s+(\S+)$`)
	digTime   = regexp.MustCompile(`(?m)^;; Query time: (\d+) usec$`)
)

// ask asks for as many new names as make a turn, checks the answers, and returns the median time.
func (n *newNames) ask(q question, k kind) (float64, error) {
	var input strings.Builder
	for range namesPerTurn {
		fmt.Fprintf(&input, "e%d.%s.default.svc.cluster.local.\n", n.next, nameService)
		n.next++
	}
	args := []string{"dig", "-u", "+tries=1", "+time=5", "+noall", "+answer", "+stats"}
	if q.plain {
		args = append(args, "@"+n.server)
	}
	argv := n.lab.HostCommand(q.host, nil, append(args, "-f", "-")...)
	r := labctl.Run(time.Minute, input.String(), argv[0], argv[1:]...)
	want := netip.MustParsePrefix(podSubnet)
	if q.hidden && !q.plain {
		want = k.subnet
	}
	answers, times := digAnswer.FindAllStringSubmatch(r.Out, -1), digTime.FindAllStringSubmatch(r.Out, -1)
	if len(answers) != namesPerTurn || len(times) != namesPerTurn {
		return 0, fmt.Errorf("%d answers in %d times to %d questions: %s", len(answers), len(times), namesPerTurn, r)
	}
	var took []float64
	for i := range times {
		if a, err := netip.ParseAddr(answers[i][1]); err != nil || !want.Contains(a) {
			return 0, fmt.Errorf("%q is not in %s", answers[i][0], want)
		}
		us, err := strconv.Atoi(times[i][1])
		if err != nil {
			return 0, err
		}
		took = append(took, float64(us)/1000)
	}
	return middle(took), nil
}
