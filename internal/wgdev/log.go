package wgdev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"syscall"

	"golang.zx2c4.com/wireguard/device"
)

// hexKey matches a key as the configuration protocol writes it.
var hexKey = regexp.MustCompile(`(?i)[0-9a-f]{48,}`)

// logger makes wireguard-go log to log: its chatter at debug, its errors at error. That a packet found no
// way is debug as well: it is what happens between two streams.
func logger(log *slog.Logger) *device.Logger {
	write := func(level slog.Level, format string, args []any) {
		if log.Enabled(context.Background(), level) {
			text := hexKey.ReplaceAllString(fmt.Sprintf(format, args...), "(key)")
			log.Log(context.Background(), level, "wireguard: "+text)
		}
	}
	return &device.Logger{
		Verbosef: func(format string, args ...any) { write(slog.LevelDebug, format, args) },
		Errorf: func(format string, args ...any) {
			level := slog.LevelError
			if unreachable(args) {
				level = slog.LevelDebug
			}
			write(level, format, args)
		},
	}
}

func unreachable(args []any) bool {
	for _, a := range args {
		if err, ok := a.(error); ok && errors.Is(err, syscall.ENETUNREACH) {
			return true
		}
	}
	return false
}
