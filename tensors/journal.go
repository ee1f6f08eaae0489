package tensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

const journalName = "journal"

// journalHead is the journal's first line.
type journalHead struct {
	Version     int    `json:"mergekit_journal"`
	Fingerprint string `json:"fingerprint"`
	Layout      string `json:"layout"`
	Tensors     int    `json:"tensors"`
	Bytes       int64  `json:"bytes"`
	Part        string `json:"part,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordSize is the length of a record: the tensor's number, the CRC-32C of the first line and that number, both as eight
// hexadecimal digits. The CRC makes a record that was torn, or that belongs to another journal, no record.
const recordSize = 8 + 1 + 8 + 1

func appendRecord(b []byte, head uint32, i int) []byte {
	number := binary.LittleEndian.AppendUint32(nil, uint32(i))
	return fmt.Appendf(b, "%08x %08x\n", uint32(i), crc32.Update(head, castagnoli, number))
}

// parseJournal reads a journal's content: its head, the finished tensors, and how many bytes of it are valid. ok is false
// when the first line is incomplete, which means that nothing was recorded.
func parseJournal(data []byte) (head journalHead, finished []int, valid int64, ok bool) {
	end := bytes.IndexByte(data, '\n') + 1
	if end == 0 || json.Unmarshal(data[:end], &head) != nil || head.Version != 1 || head.Tensors < 0 {
		return journalHead{}, nil, 0, false
	}
	crc := crc32.Checksum(data[:end], castagnoli)
	valid = int64(end)
	for rest := data[end:]; len(rest) >= recordSize; rest = rest[recordSize:] {
		i, err := strconv.ParseUint(string(rest[:8]), 16, 32)
		if err != nil || i >= uint64(head.Tensors) || !bytes.Equal(rest[:recordSize], appendRecord(nil, crc, int(i))) {
			break
		}
		finished = append(finished, int(i))
		valid += recordSize
	}
	return head, finished, valid, true
}

// journal is the open journal of an output.
type journal struct {
	f    *os.File
	head uint32 // CRC-32C of the first line
}

// newJournal begins a journal; records follow once tensors are on the disk.
func newJournal(dir string, head journalHead, finished []int) (*journal, error) {
	line, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	line = append(line, '\n')
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, head: crc32.Checksum(line, castagnoli)}
	for _, i := range finished {
		line = appendRecord(line, j.head, i)
	}
	if _, err := f.Write(line); err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
}

// openJournal goes on with a journal after its valid part.
func openJournal(dir string, data []byte, valid int64) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_WRONLY, 0o666)
	if err != nil {
		return nil, err
	}
	if err = f.Truncate(valid); err == nil {
		_, err = f.Seek(valid, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &journal{f: f, head: crc32.Checksum(data[:bytes.IndexByte(data, '\n')+1], castagnoli)}, nil
}

// record adds tensors, whose bytes must be on the disk already.
func (j *journal) record(finished []int, sync func(*os.File) error) error {
	var b []byte
	for _, i := range finished {
		b = appendRecord(b, j.head, i)
	}
	if _, err := j.f.Write(b); err != nil {
		return err
	}
	return sync(j.f)
}
