package helper

import "log/slog"

// discard logs nowhere.
var discard = slog.New(slog.DiscardHandler)
