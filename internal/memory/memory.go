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
func Anonymous() int64 { return field("/proc/self/status", "RssAnon:") }

// Resident returns the resident bytes, mapped files included.
func Resident() int64 { return field("/proc/self/status", "VmRSS:") }

// field reads a "Name: value kB" line.
func field(file, name string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(b, []byte(name))
	if !ok {
		return 0
	}
	f := bytes.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(f[0]), 10, 64)
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
	a, r := Anonymous(), Resident()
	w.mu.Lock()
	w.anon, w.rss = max(w.anon, a), max(w.rss, r)
	w.mu.Unlock()
}

// Stop ends the sampling and returns the peaks of anonymous and of resident bytes.
func (w *Watcher) Stop() (anonymous, resident int64) {
	w.once.Do(func() { close(w.stop); w.sample() })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.anon, w.rss
}
