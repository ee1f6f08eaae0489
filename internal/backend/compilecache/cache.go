package compilecache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Variable names the environment variable that moves the cache to another directory, or switches it off.
const Variable = "MERGEKIT_COMPILE_CACHE"

// maxBytes bounds the cache; the programs that were not used for longest go first.
const maxBytes = 1 << 30

// magic begins every file; a SHA-256 of the rest follows, so that a torn file is none.
const magic = "mergekit xla 1\n"

// temporary begins the names of files that are not whole yet.
const temporary = ".tmp-"

// Dir returns the directory of the cache, "" when it is off.
func Dir() string {
	switch v := os.Getenv(Variable); v {
	case "off", "none", "0":
		return ""
	case "":
	default:
		return v
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(base, "mergekit", "xla")
}

// Stats count programs since the start of the process.
type Stats struct{ Loaded, Compiled int64 }

var loaded, compiled atomic.Int64

// Counts returns how many programs came from the cache and how many were compiled.
func Counts() Stats { return Stats{loaded.Load(), compiled.Load()} }

// store is a cache for one plugin.
type store struct {
	dir  string
	salt []byte // identifies plugin, processor and flags
}

// newStore opens the cache for the plugin at path; nil when it is off or the directory cannot be made.
func newStore(path string) *store {
	dir := Dir()
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil
	}
	var b bytes.Buffer
	if st, err := os.Stat(path); err == nil {
		fmt.Fprintln(&b, st.Size(), st.ModTime().UnixNano())
	}
	fmt.Fprintln(&b, path, runtime.GOARCH, os.Getenv("XLA_FLAGS"), os.Getenv("XLA_DEBUG_OPTIONS"), runtime.NumCPU())
	// Programs are made for the processor's instructions.
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if strings.HasPrefix(line, "flags") || strings.HasPrefix(line, "Features") || strings.HasPrefix(line, "model name") {
				b.WriteString(line)
			}
			if strings.TrimSpace(line) == "" {
				break // one processor is enough
			}
		}
	}
	// GPU programs are made for the card.
	if cards, err := filepath.Glob("/proc/driver/nvidia/gpus/*/information"); err == nil && len(cards) > 0 {
		if info, err := os.ReadFile(cards[0]); err == nil {
			b.Write(info)
		}
		if version, err := os.ReadFile("/proc/driver/nvidia/version"); err == nil {
			b.Write(version)
		}
	}
	return &store{dir, b.Bytes()}
}

// file names the entry of a program with its options.
func (s *store) file(program, options []byte) string {
	h := sha256.New()
	for _, part := range [][]byte{s.salt, program, options} {
		fmt.Fprintf(h, "%d\n", len(part))
		h.Write(part)
	}
	return filepath.Join(s.dir, hex.EncodeToString(h.Sum(nil)))
}

// load returns a stored executable, nil if there is none that is whole.
func (s *store) load(program, options []byte) []byte {
	path := s.file(program, options)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	body, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(body) < sha256.Size {
		return nil
	}
	if sum := sha256.Sum256(body[sha256.Size:]); !bytes.Equal(sum[:], body[:sha256.Size]) {
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // only the order of removal suffers if it fails
	return body[sha256.Size:]
}

// save stores an executable. Failures are not told: the cache is a convenience.
func (s *store) save(program, options, executable []byte) {
	path := s.file(program, options)
	f, err := os.CreateTemp(s.dir, temporary+"*")
	if err != nil {
		return
	}
	sum := sha256.Sum256(executable)
	_, err = f.Write(slices.Concat([]byte(magic), sum[:], executable))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return
	}
	s.prune(maxBytes)
}

// prune removes the oldest entries until the rest fits.
func (s *store) prune(limit int64) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	type entry struct {
		path string
		size int64
		used time.Time
	}
	var list []entry
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), temporary) && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(s.dir, e.Name())) // of a process that was killed while it stored
			continue
		}
		if err != nil || !info.Mode().IsRegular() || len(e.Name()) != 2*sha256.Size {
			continue
		}
		list = append(list, entry{filepath.Join(s.dir, e.Name()), info.Size(), info.ModTime()})
		total += info.Size()
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Or(a.used.Compare(b.used), strings.Compare(a.path, b.path)) })
	for _, e := range list {
		if total <= limit {
			return
		}
		if os.Remove(e.path) == nil {
			total -= e.size
		}
	}
}
