package tfevents

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields reads a message into its fields' values.
func fields(t *testing.T, b []byte) map[protowire.Number][]any {
	t.Helper()
	out := map[protowire.Number][]any{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		var v any
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			v, n = protowire.ConsumeFixed32(b)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		default:
			t.Fatalf("wire type %d", kind)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		out[number], b = append(out[number], v), b[n:]
	}
	return out
}

// records reads a file's events as text.
func records(t *testing.T, path string) (list []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		message := b[12 : 12+n]
		if binary.LittleEndian.Uint32(b[8:]) != checksum(b[:8]) || binary.LittleEndian.Uint32(b[12+n:]) != checksum(message) {
			t.Fatalf("%s: a checksum is wrong", path)
		}
		b = b[16+n:]
		e := fields(t, message)
		text := fmt.Sprint(math.Float64frombits(e[1][0].(uint64)))
		if e[2] != nil {
			text += fmt.Sprint(" step ", e[2][0])
		}
		if e[3] != nil {
			text += fmt.Sprintf(" version %s", e[3][0])
		}
		if e[7] != nil {
			text += fmt.Sprint(" session ", fields(t, e[7][0].([]byte))[1][0])
		}
		if e[5] != nil {
			for _, v := range fields(t, e[5][0].([]byte))[1] {
				x := fields(t, v.([]byte))
				plugin := fields(t, fields(t, x[9][0].([]byte))[1][0].([]byte))[1][0]
				text += fmt.Sprintf(" %s %s=%v", plugin, x[1][0], math.Float32frombits(x[2][0].(uint32)))
			}
		}
		list = append(list, text)
	}
	return list
}

func TestChecksum(t *testing.T) {
	c := uint32(0xE3069283) // the check value of CRC-32C, that of "123456789"
	if got, want := checksum([]byte("123456789")), (c>>15|c<<17)+0xa282ead8; got != want {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestWriter(t *testing.T) {
	dir := t.TempDir() + "/board"
	at := time.Unix(1700000000, 500e6)
	w, err := Create(dir, at, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []int64{1, 2} {
		if err := w.Add(at, step, Scalar{"train/loss", 2.5 / float64(step)}, Scalar{"train/epoch", 0.5}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(at, 3); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// It goes on from step 2, a second too early by the clock.
	again, err := Create(dir, at.Add(-time.Second), 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := Files(dir)
	if err != nil || len(files) != 2 || !strings.Contains(files[0], "events.out.tfevents.1700000000.") || !strings.Contains(files[1], "events.out.tfevents.1700000001.") {
		t.Fatal(files, err)
	}
	for i, want := range []string{
		"1.7000000005e+09 version brain.Event:2\n1.7000000005e+09 step 1 session 1\n1.7000000005e+09 step 1 scalars train/loss=2.5 scalars train/epoch=0.5\n1.7000000005e+09 step 2 scalars train/loss=1.25 scalars train/epoch=0.5",
		"1.6999999995e+09 version brain.Event:2\n1.6999999995e+09 step 2 session 1",
	} {
		if got := strings.Join(records(t, files[i]), "\n"); got != want {
			t.Errorf("%s holds\n%s\nwant\n%s", files[i], got, want)
		}
	}
}
