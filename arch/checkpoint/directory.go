package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/llamacpp"
)

// CacheVariable names the directory of the program's caches, "off" for a new one each time.
const CacheVariable = "MERGEKIT_CACHE"

// derivation changes when what is made of a GGUF file's metadata does.
const derivation = "2"

// Directory returns the directory of the model at path: of a GGUF file the one in the cache with its configuration and tokenizer; also of a
// directory with nothing but a GGUF file. Any other path is returned as it is.
func Directory(path string) (string, error) {
	file, ok, err := bareGGUF(path)
	if err != nil || !ok {
		return path, err
	}
	c, m, err := llamacpp.Open(file)
	if err != nil {
		return "", err
	}
	defer c.Close()
	key := sha256.New()
	fmt.Fprintln(key, "gguf", derivation)
	var parts []string
	for _, p := range m.Parts() {
		abs, err := filepath.Abs(p.Path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.Path, err)
		}
		st, err := os.Stat(abs)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.Path, err)
		}
		fmt.Fprintln(key, abs, st.Size(), st.ModTime().UTC())
		parts = append(parts, abs)
	}
	base, err := cacheDir()
	if err != nil {
		return "", err
	}
	name := strings.TrimSuffix(filepath.Base(file), ".gguf")
	dir := filepath.Join(base, fmt.Sprintf("%.60s-%s", name, hex.EncodeToString(key.Sum(nil))[:16]))
	if _, err := os.Stat(filepath.Join(dir, arch.ConfigName)); err == nil {
		return dir, nil
	}
	files, err := m.Files(m.DType())
	if err != nil {
		return "", err
	}
	return dir, fillDirectory(dir, files, parts)
}

// fillDirectory makes a directory of files and links. It appears whole or not at all, whoever else makes it too.
func fillDirectory(dir string, files map[string][]byte, links []string) (err error) {
	fail := func(err error) error {
		return fmt.Errorf("keeping what is derived from a GGUF file in %s: %w; set %s to a directory that can be written", filepath.Dir(dir), err, CacheVariable)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return fail(err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), ".partial-")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(partial) }()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(partial, name), data, 0o666); err != nil {
			return fail(err)
		}
	}
	for _, to := range links {
		if err := os.Symlink(to, filepath.Join(partial, filepath.Base(to))); err != nil {
			return fail(err)
		}
	}
	if err := os.Chmod(partial, 0o755); err != nil { // MkdirTemp lets nobody else read
		return fail(err)
	}
	if err := os.Rename(partial, dir); err != nil {
		if _, there := os.Stat(filepath.Join(dir, arch.ConfigName)); there == nil {
			return nil // another process was faster
		}
		return fail(err)
	}
	return nil
}

// cacheDir is where the directories of GGUF files are.
func cacheDir() (string, error) {
	switch base := os.Getenv(CacheVariable); base {
	case "off":
		dir, err := os.MkdirTemp("", "mergekit-gguf-")
		if err != nil {
			return "", fmt.Errorf("there is no place for what is derived from a GGUF file: %w; set %s to a directory", err, CacheVariable)
		}
		return dir, nil
	case "":
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("there is no place for what is derived from a GGUF file: %w; set %s to a directory", err, CacheVariable)
		}
		return filepath.Join(user, "mergekit", "gguf"), nil
	default:
		return filepath.Join(base, "gguf"), nil
	}
}

// bareGGUF finds the GGUF file at path that has no configuration beside it.
func bareGGUF(path string) (file string, ok bool, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", false, nil // whoever opens it says so
	}
	if !st.IsDir() {
		format, err := FormatOf(path)
		return path, err == nil && format == GGUF, err
	}
	if _, err := os.Stat(filepath.Join(path, arch.ConfigName)); err == nil {
		return "", false, nil
	}
	if format, err := FormatOf(path); err != nil || format != GGUF {
		return "", false, nil
	}
	file, err = ggufIn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return file, err == nil, err
}
