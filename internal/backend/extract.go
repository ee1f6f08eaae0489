package backend

import (
	"archive/zip"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxRatio bounds what a wheel may unpack to, relative to its own size; the real ones stay below 4.
const maxRatio = 10

// member is an installed file: its slash-separated path below the directory, and its SHA-256.
type member struct{ path, sha256 string }

// extract installs the members that w wants, each with a rename, so that a reader sees the old file or the new one.
func extract(f *os.File, w wheel, dir string) ([]member, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s is not a wheel (zip): %w", w.file, err)
	}
	type job struct {
		file *zip.File
		to   string
	}
	var jobs []job
	var total uint64
	for _, m := range z.File {
		// No honest wheel has such a name, so nothing of this one is trusted.
		if strings.Contains(m.Name, `\`) || !filepath.IsLocal(filepath.FromSlash(m.Name)) {
			return nil, fmt.Errorf("%s has a member %q outside the directory; nothing of it was used", w.file, m.Name)
		}
		to, ok := w.place(m.Name)
		if !ok {
			continue
		}
		if !m.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: member %q is not a plain file; nothing of it was used", w.file, m.Name)
		}
		if total += m.UncompressedSize64; total > uint64(w.size)*maxRatio {
			return nil, fmt.Errorf("%s would unpack to more than %d times its size; nothing of it was used", w.file, maxRatio)
		}
		jobs = append(jobs, job{m, to})
	}
	if len(jobs) == 0 {
		return nil, fmt.Errorf("%s has no member %s", w.file, w.from)
	}
	var out []member
	for _, j := range jobs {
		sum, err := extractOne(j.file, filepath.Join(dir, filepath.FromSlash(j.to)))
		if err != nil {
			return nil, fmt.Errorf("unpack %s of %s: %w", j.file.Name, w.file, err)
		}
		out = append(out, member{j.to, sum})
	}
	return out, nil
}

// place returns where a member of the wheel goes, and whether it is wanted at all.
func (w wheel) place(name string) (string, bool) {
	if !strings.HasSuffix(w.from, "/") {
		return w.to, name == w.from
	}
	rest, ok := strings.CutPrefix(name, w.from)
	if !ok || rest == "" || strings.HasSuffix(rest, "/") {
		return "", false
	}
	// Headers, static libraries and Python code serve builds only, and are large.
	if strings.Contains(name, "/include/") || slices.Contains([]string{".a", ".py", ".h"}, path.Ext(name)) {
		return "", false
	}
	return w.to + rest, true
}

// extractOne unpacks a member to dst and returns its SHA-256.
func extractOne(m *zip.File, dst string) (sum string, err error) {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return "", err
	}
	r, err := m.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	mode := os.FileMode(0o644)
	if m.Mode()&0o111 != 0 || strings.Contains(m.Name, "/bin/") || path.Ext(m.Name) == ".so" {
		mode = 0o755
	}
	hash := sha256.New()
	// The reader fails if there is more data than the header says, so the bound on the headers holds.
	err = writeAtomic(dst, mode, func(out io.Writer) error {
		_, err := io.Copy(io.MultiWriter(out, hash), r)
		return err
	})
	return hex.EncodeToString(hash.Sum(nil)), err
}

// writeAtomic writes a file under another name, waits until the disk has it, and renames it.
func writeAtomic(dst string, mode os.FileMode, write func(io.Writer) error) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(dst), ".mergekit-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if err = write(tmp); err != nil {
		return err
	}
	if err = tmp.Chmod(mode); err != nil {
		return err
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), dst); err != nil {
		return err
	}
	syncDir(filepath.Dir(dst))
	return nil
}

// syncDir makes a rename last; file systems that cannot do it do not need it.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// receipt returns the name of the file that lists what was installed from a wheel, in the format of sha256sum.
func receipt(dir string, w wheel) string {
	return filepath.Join(dir, ".mergekit-"+w.pkg+"-"+w.sha256[:16]+".sha256")
}

func writeReceipt(dir string, w wheel, members []member) error {
	return writeAtomic(receipt(dir, w), 0o644, func(out io.Writer) error {
		for _, m := range members {
			if _, err := fmt.Fprintf(out, "%s  %s\n", m.sha256, m.path); err != nil {
				return err
			}
		}
		return nil
	})
}

// installed tells whether all that the wheel holds is there and unchanged.
func installed(dir string, w wheel) bool {
	f, err := os.Open(receipt(dir, w))
	if err != nil {
		return false
	}
	defer f.Close()
	lines := 0
	for s := bufio.NewScanner(f); s.Scan(); lines++ {
		sum, name, ok := strings.Cut(s.Text(), "  ")
		if !ok || !filepath.IsLocal(filepath.FromSlash(name)) || hashFile(filepath.Join(dir, filepath.FromSlash(name))) != sum {
			return false
		}
	}
	return lines > 0
}

// hashFile returns the SHA-256 of a file, or "" if it cannot be read.
func hashFile(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return ""
	}
	return hex.EncodeToString(hash.Sum(nil))
}
