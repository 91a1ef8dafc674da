package frame

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// parseAll feeds stream to a parser in pieces of the given sizes and returns copies of the frames.
func parseAll(stream []byte, pieces func() int) (frames []Frame, err error) {
	var p Parser
	var buf []byte
	for len(stream) > 0 {
		n := min(max(pieces(), 1), len(stream))
		buf = append(buf, stream[:n]...)
		stream = stream[n:]
		for {
			f, used, err := p.Next(buf)
			buf = buf[used:]
			if err != nil {
				return frames, err
			}
			if f.Type == 0 {
				break
			}
			frames = append(frames, Frame{f.Type, bytes.Clone(f.Payload)})
		}
		if len(buf) > HeaderLen+MaxPacket {
			return frames, errors.New("the parser asks for more than one frame to be kept")
		}
	}
	return frames, nil
}

func whole() int { return 1 << 30 }

func TestParser(t *testing.T) {
	hello, err := AppendHello(nil, Hello{Version: "0.1.0", Protocol: 1, MTU: 1420, Role: RoleNode})
	if err != nil {
		t.Fatal(err)
	}
	packet := bytes.Repeat([]byte{4}, 1452)
	for _, row := range []struct {
		name   string
		stream []byte
		want   []Type
		err    error
	}{
		{"nothing", nil, nil, nil},
		{"hello, then data", Append(hello, TypeData, packet), []Type{TypeHello, TypeData}, nil},
		{"unknown types between known ones",
			Append(Append(Append(AppendNumber(nil, TypeEcho, 7), 0, packet), 200, make([]byte, 65535)), TypeBye, []byte("end")),
			[]Type{TypeEcho, TypeBye}, nil},
		{"an empty packet", Append(nil, TypeData, nil), []Type{TypeData}, nil},
		{"cut within a header", []byte{0, 8}, nil, nil},
		{"cut within a payload", AppendNumber(nil, TypeAck, 1)[:9], nil, nil},
		{"the longest packet", Append(nil, TypeData, make([]byte, MaxPacket)), []Type{TypeData}, nil},
		{"a packet one byte too long", Append(nil, TypeData, make([]byte, MaxPacket+1)), nil, ErrTooLong},
		{"a novel for a goodbye", Append(nil, TypeBye, make([]byte, MaxControl+1)), nil, ErrTooLong},
		{"an ack of three bytes", Append(nil, TypeAck, make([]byte, 3)), nil, ErrMalformed},
	} {
		for cutName, pieces := range map[string]func() int{"whole": whole, "byte by byte": func() int { return 1 }} {
			t.Run(row.name+", "+cutName, func(t *testing.T) {
				frames, err := parseAll(row.stream, pieces)
				if !errors.Is(err, row.err) {
					t.Fatalf("error %v, want %v", err, row.err)
				}
				var got []Type
				for _, f := range frames {
					got = append(got, f.Type)
				}
				if !slices.Equal(got, row.want) {
					t.Errorf("types %v, want %v", got, row.want)
				}
			})
		}
	}
}

func TestNumber(t *testing.T) {
	f, n, err := new(Parser).Next(AppendNumber(nil, TypeAck, 1<<60+3))
	if err != nil || n != HeaderLen+NumberLen || f.Type != TypeAck || f.Number() != 1<<60+3 {
		t.Errorf("got %v %d, %d bytes, %v", f.Type, f.Number(), n, err)
	}
}

func TestHello(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       Hello
		ok         bool
	}{
		{"complete", `{"version":"0.1.0","protocol":1,"mtu":1420,"role":"gateway"}`, Hello{"0.1.0", 1, 1420, RoleGateway}, true},
		{"with keys of a later version", `{"version":"0.2.0","protocol":1,"role":"node","colour":"red"}`, Hello{"0.2.0", 1, 0, RoleNode}, true},
		{"not JSON", `HTTP/1.1 400 Bad Request`, Hello{}, false},
		{"no role", `{"version":"0.1.0","protocol":1}`, Hello{}, false},
		{"negative MTU", `{"version":"0.1.0","protocol":1,"mtu":-1,"role":"node"}`, Hello{}, false},
		{"endless version", `{"version":"` + strings.Repeat("1", 65) + `","protocol":1,"role":"node"}`, Hello{}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ParseHello([]byte(row.text))
			if (err == nil) != row.ok || (err != nil && !errors.Is(err, ErrMalformed)) || got != row.want {
				t.Errorf("ParseHello = %+v, %v", got, err)
			}
		})
	}
	if _, err := AppendHello(nil, Hello{Version: strings.Repeat("1", MaxControl)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("AppendHello of an oversized version: %v, want ErrTooLong", err)
	}
}

// FuzzParser holds the parser to three promises on any bytes in any pieces: the frames do not depend on
// how the stream was cut, written again they parse to themselves, and never more than one frame is kept.
func FuzzParser(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add(AppendNumber(Append(nil, TypeData, []byte("packet")), TypeEcho, 9), uint64(2))
	f.Add(Append(AppendNumber(nil, 99, 9), TypeBye, []byte("end")), uint64(3))
	f.Add([]byte{0xff, 0xff, 2, 1, 2, 3}, uint64(4))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		want, wantErr := parseAll(stream, whole)
		rng := rand.New(rand.NewPCG(seed, 0))
		got, err := parseAll(stream, func() int { return 1 + rng.IntN(7) })
		if !sameFrames(got, want) || (err == nil) != (wantErr == nil) {
			t.Fatalf("in pieces: %d frames, %v; whole: %d frames, %v", len(got), err, len(want), wantErr)
		}
		var again []byte
		for _, f := range want {
			again = Append(again, f.Type, f.Payload)
		}
		if back, err := parseAll(again, whole); err != nil || !sameFrames(back, want) {
			t.Fatalf("written again: %d frames, %v, want %d", len(back), err, len(want))
		}
	})
}

func sameFrames(a, b []Frame) bool {
	return slices.EqualFunc(a, b, func(a, b Frame) bool { return a.Type == b.Type && bytes.Equal(a.Payload, b.Payload) })
}

// FuzzHello holds ParseHello to: no result on error, and a hello accepted once is accepted again.
func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"version":"0.1.0","protocol":1,"mtu":1420,"role":"node"}`))
	f.Add([]byte(`{"mtu":1e99}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		h, err := ParseHello(payload)
		if err != nil {
			if h != (Hello{}) {
				t.Fatalf("a result beside the error %v: %+v", err, h)
			}
			return
		}
		b, err := AppendHello(nil, h)
		if err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
		fr, _, err := new(Parser).Next(b)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseHello(fr.Payload); err != nil || back.Protocol != h.Protocol || back.MTU != h.MTU || back.Role != h.Role {
			t.Fatalf("read back %+v, %v; want %+v", back, err, h)
		}
	})
}

func BenchmarkParser(b *testing.B) {
	stream := bytes.Repeat(Append(nil, TypeData, make([]byte, 1452)), 40)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		var p Parser
		for buf := stream; ; {
			f, n, _ := p.Next(buf)
			if f.Type == 0 {
				break
			}
			buf = buf[n:]
		}
	}
}
