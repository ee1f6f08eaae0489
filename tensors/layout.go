package tensors

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// defaultShardBytes is transformers' and mergekit's customary shard size.
const defaultShardBytes = 5_000_000_000

// dataAlign is where a shard's data starts: a multiple of the cache line and of every vector width.
const dataAlign = 64

const (
	stemName   = "model"
	singleName = stemName + ".safetensors"
	indexName  = stemName + indexSuffix
)

// layout is where everything of an output goes, known before a byte of weights is.
type layout struct {
	shards []shardLayout
	place  []place // of each tensor
	total  int64   // bytes of all tensors
	stem   string  // what shards and index are called before the numbers; "": stemName
}

// rename gives shards and index another stem.
func (l *layout) rename(stem string) {
	l.stem = stem
	for i := range l.shards {
		l.shards[i].name = stem + strings.TrimPrefix(l.shards[i].name, stemName)
	}
}

// index is the name of the index.
func (l *layout) index() string {
	if l.stem != "" {
		return l.stem + indexSuffix
	}
	return indexName
}

type shardLayout struct {
	name    string
	header  []byte
	size    int64 // of the whole file
	tensors []int // in file order
}

type place struct {
	shard  int
	off, n int64 // in the file
}

// plan lays the tensors out: in the given order, a new shard before the tensor that would bring a shard beyond limit bytes
// of tensors.
func plan(infos []Info, limit int64, metadata map[string]string) (*layout, error) {
	if limit == 0 {
		limit = defaultShardBytes
	}
	l := &layout{place: make([]place, len(infos))}
	seen := make(map[string]struct{}, len(infos))
	used := int64(0) // bytes in the last shard
	for i, info := range infos {
		bad := func(msg string) error { return &FormatError{Tensor: info.Name, Msg: "cannot be written: " + msg} }
		n, err := info.bytes()
		switch _, twice := seen[info.Name]; {
		case err != nil:
			return nil, bad("a tensor that " + err.Error())
		case twice:
			return nil, bad("there are two tensors of this name")
		case info.Name == metadataKey || !utf8.ValidString(info.Name):
			return nil, bad("the format has no such tensor name")
		case len(info.Shape) > maxRank:
			return nil, bad(fmt.Sprintf("it has %d dimensions, at most %d are allowed", len(info.Shape), maxRank))
		case l.total+n < l.total:
			return nil, bad("the output is larger than any disk")
		}
		seen[info.Name] = struct{}{}
		if len(l.shards) == 0 || limit > 0 && used > 0 && used+n > limit {
			l.shards = append(l.shards, shardLayout{})
			used = 0
		}
		s := &l.shards[len(l.shards)-1]
		s.tensors = append(s.tensors, i)
		used += n
		l.total += n
		l.place[i] = place{shard: len(l.shards) - 1, n: n}
	}
	if len(l.shards) == 0 {
		l.shards = make([]shardLayout, 1)
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.name = singleName
		if n := len(l.shards); n > 1 {
			s.name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, n)
		}
		if err := l.finish(s, infos, metadata); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// finish fixes the offsets in a shard and renders its header.
func (l *layout) finish(s *shardLayout, infos []Info, metadata map[string]string) error {
	if misaligned(s.tensors, infos) {
		// Wide elements first, as the reference's writer does: then every tensor begins at a multiple of its element.
		slices.SortStableFunc(s.tensors, func(a, b int) int { return infos[b].DType.BitSize() - infos[a].DType.BitSize() })
	}
	text, err := json.Marshal(withFormat(metadata))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	fmt.Fprintf(&b, "{%s:%s", quote(metadataKey), text)
	at := int64(0)
	for _, i := range s.tensors {
		n := l.place[i].n
		shape := []byte("[]")
		if len(infos[i].Shape) > 0 {
			if shape, err = json.Marshal(infos[i].Shape); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, `,%s:{"dtype":%s,"shape":%s,"data_offsets":[%d,%d]}`, quote(infos[i].Name), quote(infos[i].DType.String()), shape, at, at+n)
		l.place[i].off = at
		at += n
	}
	b.WriteByte('}')
	for b.Len()%dataAlign != 0 {
		b.WriteByte(' ')
	}
	s.header = b.Bytes()
	if len(s.header)-8 > maxHeader {
		return &FormatError{Msg: fmt.Sprintf("the header of %s would have %s bytes, at most %s are allowed", s.name, group(int64(len(s.header)-8)), group(maxHeader)), Hint: "choose a smaller shard size"}
	}
	binary.LittleEndian.PutUint64(s.header, uint64(len(s.header)-8))
	for _, i := range s.tensors {
		l.place[i].off += int64(len(s.header))
	}
	s.size = int64(len(s.header)) + at
	return nil
}

// bytes is the size of all shards.
func (l *layout) bytes() (n int64) {
	for _, s := range l.shards {
		n += s.size
	}
	return n
}

func misaligned(tensors []int, infos []Info) bool {
	at := int64(0)
	for _, i := range tensors {
		if size := int64(infos[i].DType.Size()); size > 0 && at%size != 0 {
			return true
		}
		at += infos[i].Bytes()
	}
	return false
}

// withFormat adds what loaders ask for: without "format" transformers refuses a file. A format of our own, which is no model, keeps its
// name.
func withFormat(metadata map[string]string) map[string]string {
	m := maps.Clone(metadata)
	if m == nil {
		m = map[string]string{}
	}
	if !strings.HasPrefix(m["format"], "mergekit.") {
		m["format"] = "pt"
	}
	return m
}

// quote renders a JSON string; HTML characters stay as they are.
func quote(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // strings encode
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// hash identifies the layout: two outputs with the same hash have the same bytes but for the tensors' values.
func (l *layout) hash() string {
	h := sha256.New()
	for _, s := range l.shards {
		fmt.Fprintf(h, "%s %d\n", s.name, s.size)
		h.Write(s.header)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// renderIndex renders model.safetensors.index.json: two spaces of indentation, tensors in the given order.
func (l *layout) renderIndex(infos []Info, extra map[string]any) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n  \"metadata\": {\n    \"total_size\": %d", l.total)
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		if key == "total_size" {
			continue
		}
		var value bytes.Buffer
		e := json.NewEncoder(&value)
		e.SetEscapeHTML(false)
		e.SetIndent("    ", "  ")
		if err := e.Encode(extra[key]); err != nil {
			return nil, fmt.Errorf("%s: metadata %q: %w", l.index(), key, err)
		}
		fmt.Fprintf(&b, ",\n    %s: %s", quote(key), bytes.TrimSpace(value.Bytes()))
	}
	b.WriteString("\n  },\n  \"weight_map\": {")
	for i, info := range infos {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n    %s: %s", quote(info.Name), quote(l.shards[l.place[i].shard].name))
	}
	b.WriteString("\n  }\n}\n")
	return b.Bytes(), nil
}
