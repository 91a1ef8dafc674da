package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// logging is how much the program says and in which form.
type logging struct {
	level     string // as written
	logLevel  slog.Level
	logFormat string
}

// flags binds the flags to l, with their defaults.
func (l *logging) flags(f *pflag.FlagSet) {
	f.StringVar(&l.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&l.logFormat, "log-format", "text", "text or json")
}

// check parses and bounds the values.
func (l *logging) check() error {
	if l.logFormat != "text" && l.logFormat != "json" {
		return fmt.Errorf("--log-format %q: accepted are text and json", l.logFormat)
	}
	switch strings.ToLower(l.level) {
	case "debug", "info", "warn", "error":
		return l.logLevel.UnmarshalText([]byte(l.level))
	}
	return fmt.Errorf("--log-level %q: accepted are debug, info, warn and error", l.level)
}

// newLogger returns the program's logger, and makes client-go's messages part of it.
func (l logging) newLogger(w io.Writer) *slog.Logger {
	level := &slog.HandlerOptions{Level: l.logLevel}
	var handler slog.Handler = slog.NewTextHandler(w, level)
	if l.logFormat == "json" {
		handler = slog.NewJSONHandler(w, level)
	}
	log := slog.New(handler)
	klog.SetSlogLogger(log)
	return log
}
