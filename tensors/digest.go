package tensors

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
)

// SHA256 returns the SHA-256 of a file's content in hexadecimal, read in pieces.
func SHA256(path string) (string, error) { return sha256Of(path, nil) }

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

// HeaderDigest returns a cheap identity of a safetensors file in hexadecimal: the SHA-256 of its header (the 8 bytes of the
// length, then the JSON) followed by the file's size as 8 little-endian bytes. It tells files of other tensors, shapes or
// metadata apart, not files that differ in weights alone: for that there is SHA256, which reads everything.
func HeaderDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", unreadable(path, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", unreadable(path, err)
	}
	raw, err := rawHeader(f, st.Size())
	if err != nil {
		var e *FormatError
		if errors.As(err, &e) {
			e.File = path
			return "", e
		}
		return "", unreadable(path, err)
	}
	h := sha256.Sum256(binary.LittleEndian.AppendUint64(raw, uint64(st.Size())))
	return hex.EncodeToString(h[:]), nil
}
