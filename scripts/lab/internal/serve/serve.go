// Package serve is what answers outside the cluster: the company's web server
// and resolver, and the public web server. Each host runs one process of it.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/culvert-dev/culvert/scripts/lab/internal/labnet"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// Command is the hidden subcommand that runs Main.
const Command = "__serve"

// Main serves as the host named by args until it is told to stop.
func Main(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch args[0] {
	case topology.Corp:
		resolver, err := startResolver(topology.CorpResolver)
		if err != nil {
			return err
		}
		defer resolver.stop()
		return serveWeb(ctx, "corp")
	case topology.Public:
		return serveWeb(ctx, "public")
	}
	return fmt.Errorf("nothing to serve as %q", args[0])
}

// serveWeb answers on port 80 with the workloads' handler, naming the site in a
// header so that tests know whom they reached.
func serveWeb(ctx context.Context, site string) error {
	inner := labnet.Handler()
	srv := &http.Server{
		Addr: ":80", ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Lab-Site", site)
			inner.ServeHTTP(w, r)
		}),
	}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// zone is what the company's resolver knows: one corporate name, one public.
var zone = map[string][]netip.Addr{
	topology.CorpName + ".":   {topology.CorpWeb, topology.CorpWeb6},
	topology.PublicName + ".": {topology.PublicAddr, topology.PublicAddr6},
}

type resolver struct{ servers []*dns.Server }

// startResolver listens for DNS over UDP and TCP at addr.
func startResolver(addr netip.Addr) (*resolver, error) {
	at := netip.AddrPortFrom(addr, 53).String()
	packets, err := net.ListenPacket("udp", at)
	if err != nil {
		return nil, err
	}
	streams, err := net.Listen("tcp", at)
	if err != nil {
		packets.Close()
		return nil, err
	}
	handler := dns.HandlerFunc(answer)
	r := &resolver{servers: []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: streams, Handler: handler}}}
	for _, s := range r.servers {
		go func() { _ = s.ActivateAndServe() }() // ends with stop
	}
	return r, nil
}

func (r *resolver) stop() {
	for _, s := range r.servers {
		_ = s.Shutdown()
	}
}

// answer answers authoritatively: the zone's names, NXDOMAIN for all others.
func answer(w dns.ResponseWriter, query *dns.Msg) {
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	if len(query.Question) == 1 {
		q := query.Question[0]
		addrs, known := zone[strings.ToLower(q.Name)]
		if !known {
			reply.Rcode = dns.RcodeNameError
		}
		for _, a := range addrs {
			if rr := record(q, a); rr != nil {
				reply.Answer = append(reply.Answer, rr)
			}
		}
	}
	_ = w.WriteMsg(reply)
}

func record(q dns.Question, a netip.Addr) dns.RR {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 5}
	switch {
	case q.Qtype == dns.TypeA && a.Is4():
		return &dns.A{Hdr: header, A: a.AsSlice()}
	case q.Qtype == dns.TypeAAAA && a.Is6():
		return &dns.AAAA{Hdr: header, AAAA: a.AsSlice()}
	}
	return nil
}
