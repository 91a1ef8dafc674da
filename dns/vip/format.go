package vip

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// The file is lines of text. The first names format and version; each further one is a lease, of which the last of a
// virtual address counts, or says that a process opened the file or closed it after writing all last uses:
//
//	culvert-vip 1
//	lease 211.55.48.7 10.130.0.7 1764079200 1764079300 "echo.default.svc.cluster.local." "echo."
//	closed
//	open
//
// The numbers are Unix seconds: leased since, last used as far as was noted. The names are Go strings.
const (
	fileHeader   = "culvert-vip 1"
	lineOpen     = "open"
	lineClosed   = "closed"
	maxLineBytes = 32 << 10 // more than maxNames names of maxNameBytes, every byte escaped
)

// record is a lease as the file has it.
type record struct {
	vip, real   netip.Addr
	since, used int64 // Unix seconds
	names       []string
}

// contents is what was readable of a file.
type contents struct {
	records []record // in the order of the last line of each virtual address
	lines   int
	clean   bool  // whole, and closed by the last process that had it
	foreign bool  // not ours, or of another version: nothing was read
	damage  error // the first line that could not be read, nil if all could
}

func (r record) append(b []byte) []byte {
	b = append(b, "lease "...)
	b = r.vip.AppendTo(b)
	b = append(b, ' ')
	b = r.real.AppendTo(b)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.since, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.used, 10)
	for _, name := range r.names {
		b = append(b, ' ')
		b = strconv.AppendQuote(b, name)
	}
	return append(b, '\n')
}

// readContents reads a file to its end, or to an error of r. A line without its end is damage.
func readContents(r io.Reader) contents {
	var c contents
	lines := bufio.NewReaderSize(r, maxLineBytes)
	var read []record
	known := names{}
	for {
		line, err := nextLine(lines)
		if err == io.EOF {
			break
		}
		c.lines++
		switch {
		case c.lines == 1:
			if c.foreign = err != nil || string(line) != fileHeader; c.foreign {
				return c
			}
		case err == nil && (string(line) == lineOpen || string(line) == lineClosed):
			c.clean = string(line) == lineClosed
		default:
			c.clean = false
			var rec record
			if err == nil {
				rec, err = known.parseRecord(line)
			}
			if err == nil {
				read = append(read, rec)
			} else if c.damage == nil {
				c.damage = fmt.Errorf("line %d: %w", c.lines, err)
			}
		}
		if err != nil && !errors.Is(err, errLine) {
			break // of the reader
		}
	}
	c.clean = c.clean && c.damage == nil
	c.records = lastOfEach(read)
	return c
}

var errLine = errors.New("unreadable")

// nextLine returns a line without its end; errLine for one that is too long or has no end, io.EOF after the last.
func nextLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == nil {
		return line[:len(line)-1], nil
	}
	if err == io.EOF && len(line) > 0 {
		return nil, fmt.Errorf("%w: it has no end", errLine)
	}
	long := err
	for long == bufio.ErrBufferFull {
		_, long = r.ReadSlice('\n')
	}
	if err == bufio.ErrBufferFull {
		return nil, fmt.Errorf("%w: longer than %d bytes", errLine, maxLineBytes)
	}
	return nil, err
}

// lastOfEach keeps the last record of each virtual address, in their order.
func lastOfEach(all []record) []record {
	seen := make(map[netip.Addr]struct{}, len(all))
	n := len(all)
	for i := len(all) - 1; i >= 0; i-- {
		if _, again := seen[all[i].vip]; !again {
			seen[all[i].vip] = struct{}{}
			n--
			all[n] = all[i]
		}
	}
	return all[n:]
}

// names are those of a file. One name may stand in thousands of its lines: it is kept once.
type names map[string]string

func (known names) once(name string) string {
	if kept, ok := known[name]; ok {
		return kept
	}
	known[name] = strings.Clone(name) // not with the rest of its line
	return known[name]
}

func (known names) parseRecord(line []byte) (record, error) {
	fields := bytes.SplitN(line, []byte(" "), 6)
	if len(fields) < 5 || string(fields[0]) != "lease" {
		return record{}, fmt.Errorf("%w: not a lease", errLine)
	}
	var r record
	var errs [4]error
	r.vip, errs[0] = netip.ParseAddr(string(fields[1]))
	r.real, errs[1] = netip.ParseAddr(string(fields[2]))
	r.since, errs[2] = parseSeconds(fields[3])
	r.used, errs[3] = parseSeconds(fields[4])
	if err := errors.Join(errs[:]...); err != nil {
		return record{}, fmt.Errorf("%w: %w", errLine, err)
	}
	if !plain(r.vip) || !plain(r.real) || r.vip.Is4() != r.real.Is4() {
		return record{}, fmt.Errorf("%w: %v cannot stand for %v", errLine, r.vip, r.real)
	}
	if len(fields) < 6 {
		return r, nil
	}
	var err error
	r.names, err = known.parseNames(string(fields[5]))
	return r, err
}

func plain(a netip.Addr) bool { return a.Zone() == "" && !a.Is4In6() }

// parseSeconds accepts what a 32-bit clock and the next thousand years can say.
func parseSeconds(b []byte) (int64, error) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err == nil && (n < 0 || n > 16*math.MaxInt32) {
		err = fmt.Errorf("no time: %d", n)
	}
	return n, err
}

func (known names) parseNames(s string) (list []string, err error) {
	for {
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil || quoted[0] != '"' {
			return nil, fmt.Errorf("%w: no name: %.40q", errLine, s)
		}
		name, err := strconv.Unquote(quoted)
		if err != nil || len(name) > maxNameBytes || len(list) == maxNames {
			return nil, fmt.Errorf("%w: too many names, or too long", errLine)
		}
		if len(list) == 0 || otherBytes(list)+len(name) <= maxOtherNames {
			list = append(list, known.once(name))
		}
		if s = s[len(quoted):]; s == "" {
			return list, nil
		}
		if s[0] != ' ' {
			return nil, fmt.Errorf("%w: no space between names: %.40q", errLine, s)
		}
		s = s[1:]
	}
}
