package tensors

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
)

// SHA256 returns the SHA-256 of a file's content in hexadecimal, read in pieces.
func SHA256(path string) (string, error) {
	if r, ok := mounted(path); ok {
		if known := r.SHA256(); known != "" {
			return known, nil
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(r, 0, r.Size())); err != nil {
			return "", unreadable(path, err)
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	return sha256Of(path, nil)
}

// sha256Of is SHA256 that tells how many bytes it has read.
func sha256Of(path string, read func(n int64)) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", unreadable(path, err)
	}
	defer f.Close()
	h := sha256.New()
	for b := make([]byte, 1<<20); ; {
		n, err := f.Read(b)
		_, _ = h.Write(b[:n]) // a hash takes everything
		if read != nil {
			read(int64(n))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", unreadable(path, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// HeaderDigest returns a cheap identity of a weight file in hexadecimal. Of a safetensors file it is the SHA-256 of its header (the 8 bytes
// of the length, then the JSON) followed by the file's size as 8 little-endian bytes. It tells files of other tensors, shapes or
// metadata apart, not files that differ in weights alone: for that there is SHA256, which reads everything. Of a file in another format
// (GGUF, torch.save) it is the same of the file's first and last MiB, one of which has the names of the tensors.
func HeaderDigest(path string) (string, error) {
	var f io.ReaderAt
	var size int64
	if r, ok := mounted(path); ok {
		f, size = r, r.Size()
	} else {
		file, n, err := openRegular(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		f, size = file, n
	}
	var raw []byte
	if other, err := otherFormat(f, size); err != nil {
		return "", unreadable(path, err)
	} else if other {
		if raw, err = ends(f, size); err != nil {
			return "", unreadable(path, err)
		}
	} else if raw, err = rawHeader(f, size); err != nil {
		var e *FormatError
		if errors.As(err, &e) {
			e.File = path
			return "", e
		}
		return "", unreadable(path, err)
	}
	h := sha256.Sum256(binary.LittleEndian.AppendUint64(raw, uint64(size)))
	return hex.EncodeToString(h[:]), nil
}

// otherFormat reports whether a file begins as those of formats that hold weights and are no safetensors.
func otherFormat(r io.ReaderAt, size int64) (bool, error) {
	start := make([]byte, min(size, 9))
	if _, err := r.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if len(start) == 9 && start[8] == '{' && bytes.Equal(start[4:8], make([]byte, 4)) {
		return false, nil
	}
	return bytes.HasPrefix(start, []byte("GGUF")) || bytes.HasPrefix(start, []byte("PK")) || bytes.HasPrefix(start, []byte{0x80}), nil
}

// ends reads the first and the last MiB of a file.
func ends(r io.ReaderAt, size int64) ([]byte, error) {
	const most = 1 << 20
	n := min(size, most)
	b := make([]byte, 2*n)
	if _, err := r.ReadAt(b[:n], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if _, err := r.ReadAt(b[n:], size-n); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}
