package helper

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// prepare, where set, runs before the tests: with the build tag netns it moves them into namespaces of
// their own.
var prepare func()

// roles are the hidden subcommands that a started copy of the test program may have to play.
var roles = map[string]func(args []string) int{
	HelperCommand: Main,
	GuardCommand:  GuardMain,
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if role := roles[os.Args[1]]; role != nil {
			os.Exit(role(os.Args[2:]))
		}
	}
	if prepare != nil {
		prepare()
	}
	goleak.VerifyTestMain(m)
}
