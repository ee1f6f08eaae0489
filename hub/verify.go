package hub

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
)

// newHash returns the hash that an etag is of: SHA-256 of the content, MD5 of objects in stores, or what git calls a blob (SHA-1 of a header
// with the length, and the content).
func newHash(etag string, size int64) hash.Hash {
	switch len(etag) {
	case 2 * sha256.Size:
		return sha256.New()
	case 2 * md5.Size:
		return md5.New()
	}
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

func hashName(etag string) string {
	switch len(etag) {
	case 2 * sha256.Size:
		return "SHA-256"
	case 2 * md5.Size:
		return "MD5"
	}
	return "git SHA-1"
}

// hashOf computes the etag that a content has.
func hashOf(ctx context.Context, r io.Reader, etag string, size int64) (string, error) {
	h := newHash(etag, size)
	b := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := r.Read(b)
		_, _ = h.Write(b[:n]) // a hash takes everything
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// unknownHash tells whether an etag is no hash: the store has told none (see unverified).
func unknownHash(etag string) bool { return strings.HasPrefix(etag, "v") }

// wrongContent says that what has arrived is not what was promised.
type wrongContent struct{ got, want string }

func (e *wrongContent) Error() string {
	return fmt.Sprintf("what was received has the %s %s, the hub promises %s", hashName(e.want), e.got, e.want)
}

// verify reads a file and compares its size and hash with what the listing says.
func verify(ctx context.Context, path string, f File) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return err
	}
	if st.Size() != f.Size {
		return &wrongContent{fmt.Sprintf("(of %d bytes)", st.Size()), f.Etag}
	}
	if unknownHash(f.Etag) {
		return nil
	}
	got, err := hashOf(ctx, file, f.Etag, f.Size)
	if err != nil {
		return err
	}
	if got != f.Etag {
		return &wrongContent{got, f.Etag}
	}
	return nil
}
