package evaluation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// CacheVariable names the environment variable with the directory of what is worth keeping between runs; "off" keeps nothing.
const CacheVariable = "MERGEKIT_CACHE"

// Cache keeps scores by what they are scores of. A nil Cache, and one that is off, keeps nothing.
type Cache struct{ dir string }

// OpenCache opens the cache in dir, or for "" the one of this user: "scores" in MERGEKIT_CACHE, or in the system's place for caches.
func OpenCache(dir string) (*Cache, error) {
	if dir == "" {
		base := os.Getenv(CacheVariable)
		switch base {
		case "off":
			return &Cache{}, nil
		case "":
			user, err := os.UserCacheDir()
			if err != nil {
				return nil, fmt.Errorf("there is no place for the cache of scores: %w; set %s to a directory, or to off", err, CacheVariable)
			}
			base = filepath.Join(user, "mergekit")
		}
		dir = filepath.Join(base, "scores")
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("the cache of scores: %w; set %s to a directory that can be written, or to off", err, CacheVariable)
	}
	return &Cache{dir}, nil
}

// entry is a file of the cache. Sum is the SHA-256 of Score's text, so that a torn or changed file is seen.
type entry struct {
	Key   string          `json:"key"`
	Sum   string          `json:"sum"`
	Score json.RawMessage `json:"score"`
}

func sum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:])
}

func (c *Cache) path(key string) string { return filepath.Join(c.dir, sum([]byte(key))+".json") }

// maxEntry bounds a file of the cache.
const maxEntry = 1 << 20

// Get returns a score that is kept. A damaged file counts as none.
func (c *Cache) Get(key string) (*Score, bool) {
	if c == nil || c.dir == "" {
		return nil, false
	}
	st, err := os.Stat(c.path(key))
	if err != nil || st.Size() > maxEntry {
		return nil, false
	}
	text, err := os.ReadFile(c.path(key))
	if err != nil {
		return nil, false
	}
	var e entry
	if json.Unmarshal(text, &e) != nil || e.Key != key || sum(e.Score) != e.Sum {
		return nil, false
	}
	var s Score
	if json.Unmarshal(e.Score, &s) != nil {
		return nil, false
	}
	return &s, true
}

// Put keeps a score; its file appears whole or not at all.
func (c *Cache) Put(key string, s *Score) error {
	if c == nil || c.dir == "" {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	text, err = json.Marshal(entry{key, sum(text), text})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, ".score-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), c.path(key))
}

// Score returns the score that is kept under a key, or computes it and keeps it; known says which. A score that cannot be kept is
// computed again next time, and no error.
func (c *Cache) Score(ctx context.Context, key string, compute func() (*Score, error)) (s *Score, known bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if s, ok := c.Get(key); ok {
		return s, true, nil
	}
	if s, err = compute(); err != nil {
		return nil, false, err
	}
	_ = c.Put(key, s)
	return s, false, nil
}
