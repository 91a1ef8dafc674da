package helper

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// residentFileKiB returns how much of files this process has mapped in.
func residentFileKiB(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(text)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile")
	return 0
}

func TestSlimGivesTheProgramFileBack(t *testing.T) {
	before := residentFileKiB(t)
	slim()
	if after := residentFileKiB(t); after > before/2 {
		t.Errorf("%d KiB of files resident, %d before", after, before)
	}
}

func TestMappings(t *testing.T) {
	got := parseMappings(strings.NewReader(`00400000-01000000 r-xp 00000000 fe:00 1 /usr/bin/culvert
Private_Dirty:         8 kB
Anonymous:             0 kB
01000000-01100000 r--p 00c00000 fe:00 1 /usr/bin/culvert
Anonymous:             4 kB
01100000-01200000 rw-p 00d00000 fe:00 1 /usr/bin/culvert
Private_Dirty:         0 kB
c000000000-c000400000 rw-p 00000000 00:00 0 
7fff0000-7fff1000 r-xp 00000000 00:00 0 [vdso]
`))
	want := []mapping{
		{start: 0x400000, end: 0x1000000, file: true},
		{start: 0x1000000, end: 0x1100000, file: true, dirty: true},
		{start: 0x1100000, end: 0x1200000},
		{start: 0xc000000000, end: 0xc000400000},
		{start: 0x7fff0000, end: 0x7fff1000},
	}
	if len(got) != len(want) {
		t.Fatalf("%d mappings, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("mapping %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}
