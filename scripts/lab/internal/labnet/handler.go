package labnet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"time"
)

// Limits of what one request may ask for.
const (
	maxBytes = 16 << 30
	maxSlow  = 10 * 60 * 1000 // milliseconds
)

// Handler is the HTTP side of the server, also that of the corporate and the
// public web server. With a query of close=1, and on /close, the server closes
// the connection first.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", identity)
	mux.HandleFunc("/ip", identity)
	mux.HandleFunc("/close", identity)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("/bytes", sendBytes)
	mux.HandleFunc("/upload", upload)
	mux.HandleFunc("/sha", sum)
	mux.HandleFunc("/slow", slow)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/close" || r.URL.Query().Get("close") == "1" {
			w.Header().Set("Connection", "close")
		}
		mux.ServeHTTP(w, r)
	})
}

// identity says who asked and who answered.
func identity(w http.ResponseWriter, r *http.Request) {
	name, _ := os.Hostname()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{
		"client": r.RemoteAddr, "pod": name, "ip": os.Getenv("POD_IP"), "node": os.Getenv("NODE_NAME"),
		"host": r.Host, "method": r.Method, "path": r.URL.Path,
	})
}

// sendBytes sends n bytes, default a MiB.
func sendBytes(w http.ResponseWriter, r *http.Request) {
	n, err := queryInt(r, "n", 1<<20, maxBytes)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	block := make([]byte, 64<<10)
	for ; n > 0; n -= int64(len(block)) {
		if _, err := w.Write(block[:min(n, int64(len(block)))]); err != nil {
			return
		}
	}
}

// upload sends the body back as it comes in.
func upload(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 is by nature
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.Copy(w, r.Body)
}

// sum answers with the SHA-256 of the body.
func sum(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	if _, err := io.Copy(h, r.Body); err != nil {
		return
	}
	_, _ = io.WriteString(w, hex.EncodeToString(h.Sum(nil))+"\n")
}

// slow answers after ms milliseconds, default a second.
func slow(w http.ResponseWriter, r *http.Request) {
	ms, err := queryInt(r, "ms", 1000, maxSlow)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case <-r.Context().Done():
	case <-time.After(time.Duration(ms) * time.Millisecond):
		_, _ = io.WriteString(w, "done\n")
	}
}
