package hub

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultEndpoint is the hub that names without another endpoint mean.
const DefaultEndpoint = "https://huggingface.co"

// DefaultConnections is how many requests are under way at once.
const DefaultConnections = 8

// Settings say which hub is asked, as whom, and where the cache is. The zero value is the default hub, without a token, in the
// default cache.
type Settings struct {
	Endpoint    string   // scheme, host and perhaps a path; "": DefaultEndpoint
	Token       string   // "": none is sent
	Cache       string   // directory that holds models--org--name; "": the usual place
	More        []string // further caches, which are only read
	Offline     bool     // ask nobody; only the cache counts
	Connections int      // 0: DefaultConnections
	Agent       string
	Transport   http.RoundTripper // nil: one of our own

	Warn     func(message string)           // nil: warnings are dropped
	Started  func(what string, total int64) // bytes of a transfer that are still to come, before its first
	Moved    func(n int64)                  // bytes received, from any goroutine; negative when they have to come again
	Finished func()                         // the transfer has ended, well or not

	wait    func(attempt int) time.Duration // nil: backoff
	segment int64                           // bytes of a segment; 0: by the file's size
	block   int64                           // bytes that a stream asks for at once; 0: blockBytes
	idle    time.Duration                   // longest silence of a server; 0: idleLimit
}

// FromEnvironment reads the variables that Hugging Face's own tools follow: HF_ENDPOINT, HF_TOKEN (or the file of
// `hf auth login`), HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.
func FromEnvironment() Settings {
	s := Settings{
		Endpoint: strings.TrimSuffix(os.Getenv("HF_ENDPOINT"), "/"),
		Offline:  truth("HF_HUB_OFFLINE") || truth("TRANSFORMERS_OFFLINE"),
	}
	if !truth("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
		s.Token = environmentToken()
	}
	if caches := environmentCaches(); len(caches) > 0 {
		s.Cache, s.More = caches[0], caches[1:]
	}
	return s
}

func truth(name string) bool {
	switch strings.ToUpper(os.Getenv(name)) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

// home is HF_HOME or what takes its place; "" if there is none.
func home() string {
	if d := os.Getenv("HF_HOME"); d != "" {
		return expand(d)
	}
	if d := os.Getenv("XDG_CACHE_HOME"); d != "" {
		return filepath.Join(expand(d), "huggingface")
	}
	if d, err := os.UserHomeDir(); err == nil && d != "" {
		return filepath.Join(d, ".cache", "huggingface")
	}
	return ""
}

// environmentCaches lists where downloaded models may be: first the directory that is written to.
func environmentCaches() []string {
	var roots []string
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if d := os.Getenv(name); d != "" {
			roots = append(roots, expand(d))
		}
	}
	if h := home(); h != "" {
		roots = append(roots, filepath.Join(h, "hub"))
	}
	if d, err := os.UserHomeDir(); err == nil && d != "" {
		roots = append(roots, filepath.Join(d, ".cache", "huggingface", "hub"))
	}
	var out []string
	seen := map[string]bool{}
	for _, r := range roots {
		if r = filepath.Clean(r); !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	return out
}

func environmentToken() string {
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if t := strings.TrimSpace(os.Getenv(name)); t != "" {
			return t
		}
	}
	file := expand(os.Getenv("HF_TOKEN_PATH"))
	if h := home(); file == "" && h != "" {
		file = filepath.Join(h, "token")
	}
	const longest = 4096
	if st, err := os.Stat(file); err != nil || !st.Mode().IsRegular() || st.Size() > longest {
		return ""
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func expand(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		if h, err := os.UserHomeDir(); err == nil {
			return filepath.Join(h, rest)
		}
	}
	return p
}

// roots lists the caches to look in.
func (s *Settings) roots() []string {
	if s.Cache == "" {
		return append(environmentCaches(), s.More...)
	}
	return append([]string{s.Cache}, s.More...)
}
