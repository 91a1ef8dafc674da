package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// Handler is the connection as the server sees it. Its methods are called from several goroutines.
type Handler interface {
	// Status returns a snapshot without waiting for anything.
	Status() Status
	// Plan returns the plan in force, or an error while there is none.
	Plan() (Plan, error)
	// Why explains a name or an address; it may wait for answers about the name until ctx ends.
	Why(ctx context.Context, target string) (Why, error)
	// Quit ends the connection and returns when the host is restored.
	Quit(ctx context.Context) error
}

// shutdownTimeout is how long answers under way have at the end: they wait for nothing any more, but
// somebody may have connected and say nothing.
const shutdownTimeout = 300 * time.Millisecond

// whyTimeout bounds how long the names that explain one take to resolve; the server's time for an answer
// is longer.
const whyTimeout = 20 * time.Second

// Serve answers on l until ctx ends, for owner (a user id), root, and others who may read. It waits
// for the answers under way.
func Serve(ctx context.Context, l net.Listener, owner uint32, h Handler) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.Status()) })
	mux.HandleFunc("GET /v1/plan", func(w http.ResponseWriter, _ *http.Request) {
		reply, err := h.Plan()
		writeAnswer(w, reply, err)
	})
	mux.HandleFunc("GET /v1/why", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), whyTimeout)
		defer cancel()
		reply, err := h.Why(ctx, r.URL.Query().Get("target"))
		writeAnswer(w, reply, err)
	})
	mux.HandleFunc("POST /v1/quit", ownerOnly(owner, func(w http.ResponseWriter, r *http.Request) {
		if err := h.Quit(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      30 * time.Second, // longer than the host takes to be restored
		IdleTimeout:       5 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ConnContext:       withPeer,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(deadline) != nil {
			server.Close() //nolint:errcheck // it has had its time
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

type peerKey struct{}

// withPeer notes the user id at the other end of c, if the kernel tells it.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uid, err := peerUID(c)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

func peerUID(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

func ownerOnly(owner uint32, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		uid, ok := r.Context().Value(peerKey{}).(uint32)
		if !ok || (uid != owner && uid != 0) {
			http.Error(w, "only the connection's owner and root may do this", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

// writeAnswer writes v, or why there is none.
func writeAnswer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, v)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client is gone
}
