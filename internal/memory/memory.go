// Package memory measures the process's memory: what it shares with mapped files and what is its own.
package memory

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"
)

// Total returns the machine's memory in bytes (the container's limit where that is less), 0 when unknown.
func Total() int64 {
	total := field("/proc/meminfo", "MemTotal:")
	for _, f := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil && n > 0 && (total == 0 || n < total) {
			total = n
		}
	}
	return total
}

// Anonymous returns the resident bytes that belong to no file (RssAnon), 0 where the system does not tell.
func Anonymous() int64 {
	b := read("/proc/self/status", make([]byte, 0, statusBytes))
	return value(b, "RssAnon:")
}

// statusBytes is more than the system says about a process.
const statusBytes = 4 << 10

// field reads a "Name: value kB" line of a file.
func field(file, name string) int64 { return value(read(file, make([]byte, 0, statusBytes)), name) }

// read fills b up to its capacity from the start of a file; what a file of the system has beyond is not asked for.
func read(file string, b []byte) []byte {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	n, err := f.Read(b[:cap(b)])
	if err != nil {
		return nil
	}
	return b[:n]
}

// value finds a "Name: value kB" line, 0 if there is none.
func value(b []byte, name string) int64 {
	_, rest, ok := bytes.Cut(b, []byte(name))
	if !ok {
		return 0
	}
	rest, _, _ = bytes.Cut(bytes.TrimLeft(rest, " \t"), []byte(" "))
	n, err := strconv.ParseInt(string(rest), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// Watcher samples memory in the background and keeps the peaks.
type Watcher struct {
	stop      chan struct{}
	once      sync.Once
	mu        sync.Mutex
	buffer    [statusBytes]byte
	anon, rss int64
}

// Watch starts sampling every 20 ms.
func Watch() *Watcher {
	w := &Watcher{stop: make(chan struct{})}
	w.sample()
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
				w.sample()
			}
		}
	}()
	return w
}

func (w *Watcher) sample() {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := read("/proc/self/status", w.buffer[:0])
	w.anon, w.rss = max(w.anon, value(b, "RssAnon:")), max(w.rss, value(b, "VmRSS:"))
}

// Stop ends the sampling and returns the peaks of anonymous and of resident bytes.
func (w *Watcher) Stop() (anonymous, resident int64) {
	w.once.Do(func() { close(w.stop); w.sample() })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.anon, w.rss
}

// Peak returns the largest resident memory of the process so far in bytes, 0 where the system does not tell.
func Peak() int64 { return field("/proc/self/status", "VmHWM:") }
