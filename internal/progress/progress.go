// Package progress shows how far a long work is: a bar on a terminal, plain lines elsewhere, or JSON events.
package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// How often lines and events may come: logs stay short, and a program that reads events stays informed.
const (
	lineEvery  = 5 * time.Second
	eventEvery = time.Second
	drawEvery  = 100 * time.Millisecond
)

// Options says what is shown.
type Options struct {
	Total       int64  // bytes of the whole work; 0 if unknown
	Description string // what is done, such as "merging"
	Quiet, JSON bool   // nothing at all; one JSON object per line. Quiet wins.
}

// Progress shows the progress of one work. Its methods are safe for concurrent use, and for a nil Progress.
type Progress struct {
	w     io.Writer
	o     Options
	now   func() time.Time
	start time.Time
	every time.Duration
	done  atomic.Int64
	next  atomic.Int64 // nanoseconds after start before which nothing is shown

	mu     sync.Mutex // guards what follows, and the order of what is written
	bar    *progressbar.ProgressBar
	closed bool
}

// New starts to show progress on w. Call Done at the end, also after a failure.
func New(w io.Writer, o Options) *Progress {
	f, ok := w.(*os.File)
	return start(w, o, time.Now, ok && term.IsTerminal(int(f.Fd())))
}

func start(w io.Writer, o Options, now func() time.Time, terminal bool) *Progress {
	p := &Progress{w: w, o: o, now: now, start: now(), every: lineEvery}
	switch {
	case o.Quiet:
		p.closed = true
		return p
	case o.JSON:
		p.every = eventEvery
	case terminal:
		p.every = drawEvery
		p.bar = newBar(w, o)
	}
	p.next.Store(int64(p.every))
	return p
}

func newBar(w io.Writer, o Options) *progressbar.ProgressBar {
	size := o.Total
	if size <= 0 {
		size = -1
	}
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(o.Description),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionSetSpinnerChangeInterval(0), // else a goroutine of its own draws beyond Done
	)
}

// Add counts n more bytes.
func (p *Progress) Add(n int64) {
	if p == nil || p.o.Quiet {
		return
	}
	p.done.Add(n)
	elapsed := int64(p.now().Sub(p.start))
	next := p.next.Load()
	// Only the goroutine that moves the time of the next line writes this one.
	if elapsed < next || !p.next.CompareAndSwap(next, elapsed+int64(p.every)) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.show(false)
	}
}

// Done shows the last state and ends the display. Further calls do nothing.
func (p *Progress) Done() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.show(true)
}

// show writes the state; p.mu is held. Errors of the writer are ignored: a closed terminal must not stop a merge.
func (p *Progress) show(last bool) {
	done, elapsed := p.done.Load(), p.now().Sub(p.start)
	switch {
	case p.bar != nil:
		_ = p.bar.Set64(done)
		if last {
			_ = p.bar.Exit() // Finish would claim 100% after a failure
			fmt.Fprintln(p.w)
		}
	case p.o.JSON:
		b, err := json.Marshal(event{"progress", p.o.Description, done, p.o.Total, rate(done, elapsed)})
		if err == nil {
			_, _ = p.w.Write(append(b, '\n'))
		}
	default:
		fmt.Fprintln(p.w, line(p.o.Description, done, p.o.Total, elapsed, last))
	}
}

// event is one line of JSON output.
type event struct {
	Event          string `json:"event"`
	Description    string `json:"description"`
	Done           int64  `json:"done"`
	Total          int64  `json:"total"`
	BytesPerSecond int64  `json:"bytes_per_second"`
}

// rate returns the mean bytes per second so far.
func rate(done int64, elapsed time.Duration) int64 {
	if elapsed <= 0 {
		return 0
	}
	return int64(float64(done) / elapsed.Seconds())
}

// line returns the text of one plain line.
func line(what string, done, total int64, elapsed time.Duration, last bool) string {
	perSecond := rate(done, elapsed)
	text := what + " "
	if total > 0 {
		percent := int64(float64(done) / float64(total) * 100)
		text += fmt.Sprintf("%d%% %s of %s", percent, size(done), size(total))
	} else {
		text += size(done)
	}
	if perSecond > 0 {
		text += fmt.Sprintf(", %s/s", size(perSecond))
	}
	switch {
	case last:
		text += fmt.Sprintf(", took %v", elapsed.Round(time.Second/10))
	case total > done && perSecond > 0:
		left := time.Duration(float64(total-done) / float64(perSecond) * float64(time.Second))
		text += fmt.Sprintf(", %v left", max(left.Round(time.Second), time.Second))
	}
	return text
}

// size returns n bytes in decimal units, as file managers and networks count them.
func size(n int64) string {
	v, unit := float64(n), 0
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	// 999.5 would print as 1000: move to the next unit before that.
	for v >= 999.5 && unit < len(units)-1 {
		v, unit = v/1000, unit+1
	}
	if unit > 0 && v < 9.95 {
		return fmt.Sprintf("%.1f %s", v, units[unit])
	}
	return fmt.Sprintf("%.0f %s", v, units[unit])
}
