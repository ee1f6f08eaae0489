package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// stepView shows the steps of a work that is not counted in bytes: one line that changes on a terminal, a line every few seconds
// elsewhere, events with --json.
type stepView struct {
	cmd      *cobra.Command
	mu       sync.Mutex
	terminal bool
	open     bool // a line without an end is on the terminal
	last     time.Time
}

func newStepView(cmd *cobra.Command) *stepView {
	return &stepView{cmd: cmd, terminal: term.IsTerminal(int(os.Stderr.Fd())), last: time.Now()}
}

func (v *stepView) show(done, total int, what string) {
	if quietWanted(v.cmd) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	text := what
	if total > 0 {
		text = fmt.Sprintf("%s: %d of %d", what, done, total)
	}
	const often, seldom = 100 * time.Millisecond, 5 * time.Second
	wait := seldom
	if v.terminal && !jsonWanted(v.cmd) {
		wait = often
	}
	if time.Since(v.last) < wait {
		return
	}
	v.last = time.Now()
	switch {
	case jsonWanted(v.cmd):
		writeJSON(os.Stdout, map[string]any{"event": "progress", "what": what, "done": done, "total": total})
	case v.terminal:
		fmt.Fprintf(os.Stderr, "\r\033[K%s", text)
		v.open = true
	default:
		fmt.Fprintln(os.Stderr, text)
	}
}

// end closes the line.
func (v *stepView) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open {
		fmt.Fprint(os.Stderr, "\r\033[K")
		v.open = false
	}
}
