package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
)

// ErrNotStatic reports a binary that needs a dynamic loader, which an image from scratch has not.
var ErrNotStatic = errors.New("binary is dynamically linked (build it with CGO_ENABLED=0)")

// architectures maps ELF machines to the names of the OCI image specification (GOARCH values).
var architectures = map[elf.Machine]string{
	elf.EM_X86_64:  "amd64",
	elf.EM_AARCH64: "arm64",
	elf.EM_ARM:     "arm",
	elf.EM_RISCV:   "riscv64",
	elf.EM_S390:    "s390x",
	elf.EM_PPC64:   "ppc64le",
}

// architecture returns the GOARCH name of a static Linux binary. The error matches [ErrNotStatic]
// when the binary asks for a dynamic loader.
func architecture(binary []byte) (string, error) {
	file, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return "", fmt.Errorf("not a Linux binary: %w", err)
	}
	defer file.Close()
	for _, program := range file.Progs {
		if program.Type == elf.PT_INTERP {
			return "", ErrNotStatic
		}
	}
	name, known := architectures[file.Machine]
	if !known {
		return "", fmt.Errorf("binary is for %v, which has no image architecture here", file.Machine)
	}
	return name, nil
}
