package hub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
)

// A part is a blob on its way: a file of the final size whose segments are filled in any order, and a record beside it. Python's
// tools keep theirs in <etag>.incomplete and continue it at its length, so ours has another name.
const (
	partSuffix   = ".mergekit-part"
	recordSuffix = ".mergekit-record"
	recordMagic  = "mergekit part 1"
)

// mostSegments bounds a record.
const mostSegments = 1 << 16

// partFile is an open part.
type partFile struct {
	path, recordPath string
	data, record     *os.File
	size, segment    int64
	head             int64 // bytes of the record before the counts
	have             []atomic.Int64
	unverified       bool // there is no hash that would tell after a power cut which counted bytes never reached the disk
}

// recordHead is the first line of a record.
func recordHead(etag string, size, segment int64) string {
	return fmt.Sprintf("%s %s %d %d\n", recordMagic, etag, size, segment)
}

// parseRecord reads a record: how far each segment of the blob has come, and how long segments are. ok is false for what is no record
// of this blob.
func parseRecord(data []byte, etag string, size int64) (segment int64, have []int64, ok bool) {
	line, counts, found := bytes.Cut(data, []byte("\n"))
	if !found || len(line) > 256 {
		return 0, nil, false
	}
	var recorded int64
	var hash string
	if n, err := fmt.Sscanf(string(line), recordMagic+" %64s %d %d", &hash, &recorded, &segment); err != nil || n != 3 {
		return 0, nil, false
	}
	if hash != etag || recorded != size || segment <= 0 || string(line)+"\n" != recordHead(etag, size, segment) {
		return 0, nil, false
	}
	n := segmentCount(size, segment)
	if n > mostSegments || int64(len(counts)) != 8*n {
		return 0, nil, false
	}
	have = make([]int64, n)
	for i := range have {
		v := binary.LittleEndian.Uint64(counts[8*i:])
		if v > uint64(segmentLength(size, segment, int64(i))) {
			return 0, nil, false
		}
		have[i] = int64(v)
	}
	return segment, have, true
}

func segmentCount(size, segment int64) int64 {
	if size == 0 {
		return 1
	}
	return (size-1)/segment + 1
}

func segmentLength(size, segment, i int64) int64 {
	return min(segment, size-i*segment)
}

// segmentFor is how long the segments of a file are: long enough that asking costs little, short enough that a few connections
// share the file.
func segmentFor(size int64) int64 {
	const least, count = 16 << 20, 128
	return max(least, (size/count+1<<20)&^(1<<20-1))
}

// readRecord reads the record of a part whose data is here.
func readRecord(blob, etag string, size int64) (segment int64, have []int64, ok bool) {
	st, err := os.Stat(blob + partSuffix)
	if err != nil || !st.Mode().IsRegular() || st.Size() != size {
		return 0, nil, false
	}
	st, err = os.Stat(blob + recordSuffix)
	if err != nil || !st.Mode().IsRegular() || st.Size() > 8*mostSegments+512 {
		return 0, nil, false
	}
	data, err := os.ReadFile(blob + recordSuffix)
	if err != nil {
		return 0, nil, false
	}
	return parseRecord(data, etag, size)
}

// partReceived is how much of a blob a part of it has.
func partReceived(blob, etag string, size int64) int64 {
	_, have, _ := readRecord(blob, etag, size)
	n := int64(0)
	for _, h := range have {
		n += h
	}
	return n
}

// openPart goes on with the part of a blob, or begins one.
func openPart(blob, etag string, size, segment int64) (p *partFile, err error) {
	p = &partFile{path: blob + partSuffix, recordPath: blob + recordSuffix, size: size, segment: segment, unverified: unknownHash(etag)}
	if err := os.MkdirAll(filepath.Dir(blob), 0o777); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	had, have, resumed := readRecord(blob, etag, size)
	flags := os.O_RDWR | os.O_CREATE
	if resumed {
		p.segment = had
	} else {
		flags |= os.O_TRUNC
		have = make([]int64, segmentCount(size, segment))
	}
	if p.record, err = os.OpenFile(p.recordPath, flags, 0o666); err != nil {
		return nil, err
	}
	if p.data, err = os.OpenFile(p.path, flags, 0o666); err != nil {
		return nil, err
	}
	head := recordHead(etag, size, p.segment)
	p.head = int64(len(head))
	p.have = make([]atomic.Int64, len(have))
	for i, n := range have {
		p.have[i].Store(n)
	}
	if resumed {
		return p, nil
	}
	if err := p.data.Truncate(size); err != nil {
		return nil, err
	}
	_, err = p.record.WriteAt(append([]byte(head), make([]byte, 8*len(have))...), 0)
	return p, err
}

// received is how many bytes of the blob are here.
func (p *partFile) received() int64 {
	n := int64(0)
	for i := range p.have {
		n += p.have[i].Load()
	}
	return n
}

// rest is the range of segment i that is still to come.
func (p *partFile) rest(i int) (from, to int64) {
	start := int64(i) * p.segment
	return start + p.have[i].Load(), start + segmentLength(p.size, p.segment, int64(i))
}

// add writes the next bytes of segment i, and then that they are there.
func (p *partFile) add(i int, b []byte) error {
	from, to := p.rest(i)
	if int64(len(b)) > to-from {
		return errors.New("more bytes than the segment has")
	}
	if _, err := p.data.WriteAt(b, from); err != nil {
		return err
	}
	n := p.have[i].Load() + int64(len(b))
	if p.unverified {
		if int64(len(b)) < to-from {
			p.have[i].Store(n) // for this process; the record counts whole segments
			return nil
		}
		if err := p.data.Sync(); err != nil {
			return err
		}
	}
	return p.count(i, n)
}

func (p *partFile) count(i int, n int64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	if _, err := p.record.WriteAt(b[:], p.head+8*int64(i)); err != nil {
		return err
	}
	p.have[i].Store(n)
	return nil
}

// reset forgets what has been received.
func (p *partFile) reset() error {
	for i := range p.have {
		if p.have[i].Load() > 0 {
			if err := p.count(i, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish gives the blob its name; the caller has verified it.
func (p *partFile) finish(blob string) error {
	if err := p.data.Sync(); err != nil {
		return err
	}
	if err := os.Rename(p.path, blob); err != nil {
		return err
	}
	p.close()
	_ = os.Remove(p.recordPath)
	return nil
}

// discard takes the part away.
func (p *partFile) discard() {
	p.close()
	_ = os.Remove(p.recordPath)
	_ = os.Remove(p.path)
}

func (p *partFile) close() {
	for _, f := range []io.Closer{p.data, p.record} {
		if f != (*os.File)(nil) {
			_ = f.Close()
		}
	}
}
