// Command culvert-image writes the gateway's container image from its static binary, without a
// container engine:
//
//	culvert-image --binary bin/culvert-gateway --tag culvert.dev/culvert-gateway:dev -o bin/culvert-gateway.tar
//
// It prints the image's ID. `ctr -n k8s.io images import` and `docker load` read the file.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/deploy/image"
	"github.com/culvert-dev/culvert/internal/version"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run parses the arguments and writes the image beside its final name first, so that a failure
// never leaves half an image under the name others load.
func run(args []string) error {
	flags := pflag.NewFlagSet("culvert-image", pflag.ContinueOnError)
	binary := flags.String("binary", "", "the static Linux binary to pack (required)")
	path := flags.String("path", "/culvert-gateway", "where it lies in the image")
	tag := flags.String("tag", "ghcr.io/culvert-dev/culvert-gateway:"+version.Version, "name of the image, REPOSITORY:TAG")
	title := flags.String("title", "culvert-gateway", "title label")
	out := flags.StringP("output", "o", "", "the tar file to write (required)")
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if *binary == "" || *out == "" || flags.NArg() > 0 {
		return fmt.Errorf("usage: culvert-image --binary FILE -o FILE.tar [flags]\n%s", flags.FlagUsages())
	}
	program, err := os.ReadFile(*binary)
	if err != nil {
		return err
	}
	id, err := writeFile(*out, image.Options{
		Binary: program, Path: *path, Tag: *tag, Title: *title, Version: version.Version,
	})
	if err != nil {
		return fmt.Errorf("image of %s: %w", *binary, err)
	}
	fmt.Printf("%s  %s  %s\n", *out, *tag, id)
	return nil
}

// writeFile writes the image to name by way of a temporary file in the same folder.
func writeFile(name string, o image.Options) (id string, err error) {
	temporary, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return "", err
	}
	defer os.Remove(temporary.Name())
	if id, err = image.Write(temporary, o); err != nil {
		temporary.Close()
		return "", err
	}
	if err := temporary.Chmod(0o644); err != nil {
		return "", err
	}
	if err := temporary.Close(); err != nil {
		return "", err
	}
	return id, os.Rename(temporary.Name(), name)
}
