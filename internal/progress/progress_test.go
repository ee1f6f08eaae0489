package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that moves only when told to.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }
func newClock() *clock                   { return &clock{time.Unix(1000, 0)} }
func lines(b *bytes.Buffer) []string {
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

func check(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestPlainLinesAreRareAndEndWithOne(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	p := start(&out, Options{Total: 2_700_000_000, Description: "merging"}, c.now, false)
	for range 12 { // 12 seconds at 100 MB/s
		c.advance(time.Second)
		p.Add(100_000_000)
	}
	p.Done()
	p.Done()
	p.Add(5)
	check(t, out.String(), "merging 18% 500 MB of 2.7 GB, 100 MB/s, 22s left\n"+
		"merging 37% 1.0 GB of 2.7 GB, 100 MB/s, 17s left\n"+
		"merging 44% 1.2 GB of 2.7 GB, 100 MB/s, took 12s\n")
}

func TestUnknownTotal(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	p := start(&out, Options{Description: "reading"}, c.now, false)
	c.advance(5 * time.Second)
	p.Add(10_000)
	p.Done()
	check(t, out.String(), "reading 10 kB, 2.0 kB/s\nreading 10 kB, 2.0 kB/s, took 5s\n")
}

func TestJSONEvents(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	p := start(&out, Options{Total: 400, Description: "a \"b\"", JSON: true}, c.now, true)
	for range 4 {
		c.advance(500 * time.Millisecond)
		p.Add(100)
	}
	p.Done()
	want := []event{
		{"progress", "a \"b\"", 200, 400, 200},
		{"progress", "a \"b\"", 400, 400, 200},
		{"progress", "a \"b\"", 400, 400, 200},
	}
	got := lines(&out)
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d: %q", len(got), len(want), got)
	}
	for i, l := range got {
		var e event
		if err := json.Unmarshal([]byte(l), &e); err != nil || e != want[i] {
			t.Errorf("line %d: %s (%v), want %+v", i, l, err, want[i])
		}
	}
}

func TestQuietAndNilShowNothing(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	p := start(&out, Options{Total: 10, Quiet: true, JSON: true}, c.now, true)
	c.advance(time.Hour)
	p.Add(10)
	p.Done()
	check(t, out.String(), "")
	var none *Progress
	none.Add(1)
	none.Done()
}

func TestTerminalBar(t *testing.T) {
	for _, total := range []int64{1000, 0} {
		t.Run(fmt.Sprint(total), func(t *testing.T) {
			var out bytes.Buffer
			c := newClock()
			p := start(&out, Options{Total: total, Description: "merging"}, c.now, true)
			c.advance(time.Second)
			p.Add(500)
			p.Done()
			if s := out.String(); !strings.Contains(s, "merging") || !strings.Contains(s, "500") || !strings.HasSuffix(s, "\n") {
				t.Errorf("got %q", s)
			}
			if strings.Contains(out.String(), "100%") {
				t.Errorf("claims to be complete: %q", out.String())
			}
		})
	}
}

func TestConcurrentAdd(t *testing.T) {
	var out bytes.Buffer
	p := New(&out, Options{Total: 8000, JSON: true})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				p.Add(1)
			}
		})
	}
	wg.Wait()
	p.Done()
	if !strings.Contains(out.String(), `"done":8000,"total":8000`) {
		t.Errorf("got %q", out.String())
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB",
		999_499: "999 kB", 999_500: "1.0 MB", 2_700_000_000: "2.7 GB", 1 << 62: "4612 PB",
	} {
		check(t, size(n), want)
	}
}

func TestLine(t *testing.T) {
	check(t, line("merging", 1_220_000_000, 2_700_000_000, 1370*time.Millisecond, false), "merging 45% 1.2 GB of 2.7 GB, 891 MB/s, 2s left")
	check(t, line("merging", 0, 100, 0, false), "merging 0% 0 B of 100 B")
	check(t, line("merging", 0, 0, 0, true), "merging 0 B, took 0s")
}
