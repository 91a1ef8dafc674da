package hostdns

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// marker begins the first line of every file we write, and the names of the connections follow, the
// top one first, separated by commas. Restoring and cleaning up touch nothing without it.
const marker = "# culvert connection: "

// Connections returns the connections that hooked the file with this content, the top one first, or
// nil when it is not ours.
func Connections(content []byte) []string {
	line, _, _ := bytes.Cut(content, []byte("\n"))
	names, ours := strings.CutPrefix(string(line), marker)
	if !ours {
		return nil
	}
	return strings.FieldsFunc(names, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// render returns the file that makes c's servers the only ones for connection name, given the
// content it replaces: that one's search list follows ours and its options stay.
//
// glibc before 2.26 looks at the first 6 domains and 256 characters of a search list only; ours come
// first, so on such a host the last of the original ones may go unused while we are hooked.
func render(name string, c Config, original []byte) []byte {
	var b bytes.Buffer
	stack := slices.DeleteFunc(Connections(original), func(n string) bool { return n == name })
	fmt.Fprintf(&b, "%s%s\n", marker, strings.Join(append([]string{name}, stack...), ", "))
	b.WriteString("# Written by Culvert, which puts the file back when it leaves. Changes made here are lost then.\n")
	for _, s := range c.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if search := mergeSearch(c.Search, Parse(original).Search); len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	for _, line := range bytes.Split(original, []byte("\n")) {
		if bytes.HasPrefix(line, []byte("options")) || bytes.HasPrefix(line, []byte("sortlist")) {
			b.Write(bytes.TrimRight(line, " \t\r"))
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// mergeSearch returns ours and then those of theirs that are new, comparing as DNS does, without case.
func mergeSearch(ours, theirs []string) []string {
	out := slices.Clone(ours)
	for _, d := range theirs {
		same := func(o string) bool { return strings.EqualFold(o, d) }
		if !slices.ContainsFunc(out, same) {
			out = append(out, d)
		}
	}
	return out
}
