// Package tfevents writes the event files that TensorBoard draws: records of a length, its checksum, an Event message of TensorFlow and its
// checksum, one behind the other. A run that goes on writes a further file, which takes away what the earlier ones have from its first step
// on.
package tfevents

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of the messages, from tensorflow/core/util/event.proto and framework/summary.proto.
const (
	eventTime, eventStep, eventVersion, eventSummary, eventSession = 1, 2, 3, 5, 7
	sessionStatus, sessionStart                                    = 1, 1
	summaryValue                                                   = 1
	valueTag, valueNumber, valueMetadata                           = 1, 2, 9
	metadataPlugin, pluginName                                     = 1, 1
)

// prefix begins the names of event files: TensorBoard looks for it, and reads the files of a directory in the order of their names.
const prefix = "events.out.tfevents."

// Scalar is a number with a name; TensorBoard groups names by what stands before the first slash.
type Scalar struct {
	Tag   string
	Value float64
}

// Writer appends to an event file. Its methods are not safe for concurrent use.
type Writer struct {
	f *os.File
}

// Create begins an event file in the directory dir, which is made if need be. From step first on, events of earlier files count no more.
func Create(dir string, now time.Time, first int64) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	second := now.Unix()
	for _, e := range entries { // behind all that are there, also where two runs begin within a second or the clock went back
		number, _, _ := strings.Cut(strings.TrimPrefix(e.Name(), prefix), ".")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && strings.HasPrefix(e.Name(), prefix) && n < 1e10-1 { // ten digits

			second = max(second, n+1)
		}
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "host"
	}
	host = strings.Map(func(r rune) rune {
		if r == '/' || r == '.' || r < ' ' {
			return '-'
		}
		return r
	}, host)
	name := filepath.Join(dir, fmt.Sprintf("%s%010d.%s.%d", prefix, second, host, os.Getpid()))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	w := &Writer{f}
	err = w.record(protowire.AppendString(protowire.AppendTag(event(now, 0), eventVersion, protowire.BytesType), "brain.Event:2"))
	if err == nil {
		session := protowire.AppendVarint(protowire.AppendTag(nil, sessionStatus, protowire.VarintType), sessionStart)
		err = w.record(protowire.AppendBytes(protowire.AppendTag(event(now, first), eventSession, protowire.BytesType), session))
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return w, nil
}

// event begins an Event message.
func event(at time.Time, step int64) []byte {
	b := protowire.AppendTag(nil, eventTime, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(float64(at.UnixNano())/1e9))
	if step != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, eventStep, protowire.VarintType), uint64(step))
	}
	return b
}

// Add appends the numbers of a step.
func (w *Writer) Add(at time.Time, step int64, list ...Scalar) error {
	if len(list) == 0 {
		return nil
	}
	var summary []byte
	for _, s := range list {
		plugin := protowire.AppendString(protowire.AppendTag(nil, pluginName, protowire.BytesType), "scalars")
		metadata := protowire.AppendBytes(protowire.AppendTag(nil, metadataPlugin, protowire.BytesType), plugin)
		v := protowire.AppendString(protowire.AppendTag(nil, valueTag, protowire.BytesType), s.Tag)
		v = protowire.AppendFixed32(protowire.AppendTag(v, valueNumber, protowire.Fixed32Type), math.Float32bits(float32(s.Value)))
		v = protowire.AppendBytes(protowire.AppendTag(v, valueMetadata, protowire.BytesType), metadata)
		summary = protowire.AppendBytes(protowire.AppendTag(summary, summaryValue, protowire.BytesType), v)
	}
	return w.record(protowire.AppendBytes(protowire.AppendTag(event(at, step), eventSummary, protowire.BytesType), summary))
}

// record appends a message in one write, so that a reader never sees a part of one that a kill left unless the disk did.
func (w *Writer) record(message []byte) error {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(message)))
	b = binary.LittleEndian.AppendUint32(b, checksum(b))
	b = append(b, message...)
	_, err := w.f.Write(binary.LittleEndian.AppendUint32(b, checksum(message)))
	return err
}

// checksum is the masked CRC-32C of record files.
func checksum(b []byte) uint32 {
	c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return (c>>15 | c<<17) + 0xa282ead8
}

// Sync writes what the system holds back to the disk.
func (w *Writer) Sync() error { return w.f.Sync() }

// Close ends the file.
func (w *Writer) Close() error { return w.f.Close() }

// Files lists the event files of a directory in the order in which they are read.
func Files(dir string) ([]string, error) {
	list, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	slices.Sort(list)
	return list, err
}
