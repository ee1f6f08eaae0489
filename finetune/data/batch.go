package data

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"sync"
)

// Batch is the sequences of one pass, row-major [Rows, Length].
type Batch struct {
	Rows, Length int
	IDs          []int32
	Targets      []int32   // the token to predict at each position; 0 where Weights is 0
	Weights      []float32 // of the target in the loss; 0: no target
	Positions    []int32   // in the example
	Segments     []int32   // 1, 2 ... for the examples of a row; 0: padding
	Lengths      []int32   // tokens of each row
	Class        []int32   // label of each row's first example, -1 without
	Examples     [][]int   // which examples each row holds
	Tokens       int       // that are no padding
}

// BatchOptions say how examples become batches.
type BatchOptions struct {
	MicroBatch, GradAccum int
	Packing               string // none, bfd, bfd_split, wrapped
	Buckets               []int  // lengths to which sequences are padded; nil chooses
	MaxLength             int
	Shuffle               bool
	Seed                  uint64
	PadID                 int32
	// DropLast leaves the last step of an epoch out if it is not full.
	DropLast bool
	// Replicas divide the micro batches of a step; steps hold a multiple of them, the last ones perhaps of padding alone.
	Replicas int
}

// Batcher plans batches. What step k of an epoch reads is a function of seed, epoch and k alone, so that a run that resumes needs no
// state.
type Batcher struct {
	set     *Set
	o       BatchOptions
	buckets []int

	mu    sync.Mutex
	epoch int // of plan; -1: none
	plan  *epochPlan
}

// epochPlan is an epoch's micro batches: each has a length and its sequences.
type epochPlan struct {
	micros []micro
	rows   int // sequences
	tokens int64
	room   int64
}

type micro struct {
	length int
	rows   [][]piece
}

// NewBatcher prepares batches of a set.
func NewBatcher(s *Set, o BatchOptions) (*Batcher, error) {
	if len(s.Examples) == 0 {
		return nil, &Error{Msg: "there is no row to make batches of"}
	}
	o.MicroBatch, o.GradAccum, o.Replicas = max(o.MicroBatch, 1), max(o.GradAccum, 1), max(o.Replicas, 1)
	if o.Packing == "" {
		o.Packing = "none"
	}
	if !slices.Contains(packings, o.Packing) {
		return nil, &Error{Msg: fmt.Sprintf("packing %q is not known; none, bfd, bfd_split and wrapped are", o.Packing)}
	}
	longest, empty := 0, -1
	for i := range s.Examples {
		longest = max(longest, len(s.Examples[i].IDs))
		if len(s.Examples[i].IDs) == 0 {
			empty = i
		}
	}
	if empty >= 0 {
		return nil, &Error{File: s.Examples[empty].File, Line: s.Examples[empty].Line, Msg: "the row has no tokens"}
	}
	if o.MaxLength <= 0 {
		o.MaxLength = longest
	}
	b := &Batcher{set: s, o: o, epoch: -1}
	switch {
	case o.Packing == "wrapped":
		b.buckets = []int{roundUp(o.MaxLength, 8)}
	case o.Packing != "none":
		// What best fit fills does not depend on the order of equal lengths, so one plan tells the longest sequence; only a share
		// of the rows in an epoch can make it longer.
		b.buckets = []int{roundUp(o.MaxLength, 8)}
		if whole := b.sizes(0); b.wholeShares() && len(whole) > 0 {
			b.buckets = []int{roundUp(slices.Max(whole), 8)}
		}
	case len(o.Buckets) > 0:
		b.buckets = slices.Clone(o.Buckets)
		slices.Sort(b.buckets)
		b.buckets = slices.Compact(b.buckets)
		if b.buckets[0] <= 0 {
			return nil, &Error{Msg: fmt.Sprintf("a bucket of %d tokens", b.buckets[0])}
		}
		if last := b.buckets[len(b.buckets)-1]; last < min(longest, o.MaxLength) {
			return nil, &Error{Msg: fmt.Sprintf("the largest of the buckets is %d, but there is a row of %d tokens; add a larger one or lower max_length", last, min(longest, o.MaxLength))}
		}
		b.buckets = b.used(b.buckets)
	default:
		b.buckets = b.used(b.choose())
	}
	if o.DropLast && b.StepsPerEpoch(0) == 0 {
		return nil, &Error{Msg: fmt.Sprintf("an epoch has fewer rows than one step takes (%d x %d), and the last step is dropped", o.MicroBatch, o.GradAccum)}
	}
	return b, nil
}

// sizes lists the tokens of the sequences of an epoch.
func (b *Batcher) sizes(epoch int) []int {
	rows := b.sequences(epoch)
	out := make([]int, len(rows))
	for i, r := range rows {
		out[i] = size(r)
	}
	return out
}

// sequences packs the rows of an epoch.
func (b *Batcher) sequences(epoch int) [][]piece {
	return pack(b.o.Packing, b.order(epoch), func(i int) int { return len(b.set.Examples[i].IDs) }, b.o.MaxLength)
}

// size is the number of tokens of a sequence.
func size(row []piece) (n int) {
	for _, p := range row {
		n += p.len()
	}
	return n
}

// wholeShares says that every epoch takes the same rows.
func (b *Batcher) wholeShares() bool {
	for i := range b.set.Examples {
		if s := b.set.Examples[i].Share; s != math.Floor(s) {
			return false
		}
	}
	return true
}

// used leaves buckets out into which no row falls: they would be compiled for nothing.
func (b *Batcher) used(buckets []int) []int {
	hit := make(map[int]bool)
	for i := range b.set.Examples {
		hit[bucketOf(buckets, min(len(b.set.Examples[i].IDs), b.o.MaxLength))] = true
	}
	var out []int
	for _, k := range buckets {
		if hit[k] {
			out = append(out, k)
		}
	}
	return out
}

func roundUp(n, k int) int { return (n + k - 1) / k * k }

// maxBuckets bounds the number of lengths, since each is compiled.
const maxBuckets = 6

// choose picks few lengths that waste little.
func (b *Batcher) choose() []int {
	var lengths []int
	for i := range b.set.Examples {
		lengths = append(lengths, min(len(b.set.Examples[i].IDs), b.o.MaxLength))
	}
	slices.Sort(lengths)
	longest := lengths[len(lengths)-1]
	if lengths[0] == longest {
		return []int{roundUp(longest, 8)}
	}
	// A batch is as long as its longest row: of neighbours in the file, or of neighbours in length where batches are grouped by it.
	if !b.o.Shuffle {
		lengths = b.sizes(0)
	}
	var longestOf []int
	for from := 0; from < len(lengths); from += b.o.MicroBatch {
		longestOf = append(longestOf, slices.Max(lengths[from:min(from+b.o.MicroBatch, len(lengths))]))
	}
	slices.Sort(longestOf)
	step := 32
	if longest <= 64 {
		step = 16
	}
	// Each length costs a compilation, which a few batches do not pay back.
	return buckets(longestOf, longest, step, min(maxBuckets, max(1, len(longestOf)/4)))
}

// bucket returns the length to which n tokens are padded.
func (b *Batcher) bucket(n int) int { return bucketOf(b.buckets, n) }

func bucketOf(buckets []int, n int) int {
	for _, k := range buckets {
		if n <= k {
			return k
		}
	}
	return buckets[len(buckets)-1]
}

// mix hashes two words (SplitMix64's finaliser).
func mix(seed, counter uint64) uint64 {
	z := seed + (counter+1)*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// shuffled orders n things by a hash of the stream.
func shuffled(n int, stream uint64) []int {
	type key struct {
		h uint64
		i int
	}
	keys := make([]key, n)
	for i := range keys {
		keys[i] = key{mix(stream, uint64(i)), i}
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.h, b.h), a.i-b.i) })
	order := make([]int, n)
	for i, k := range keys {
		order[i] = k.i
	}
	return order
}

// order lists the examples of an epoch: each as often as its source's share says. Of the fraction, an epoch takes the next rows of
// a shuffled source, so that a share of a half sees every row in two epochs.
func (b *Batcher) order(epoch int) []int {
	var list []int
	for from := 0; from < len(b.set.Examples); {
		to, first := from+1, &b.set.Examples[from]
		for to < len(b.set.Examples) && b.set.Examples[to].source == first.source && b.set.Examples[to].Share == first.Share {
			to++
		}
		share := first.Share
		if share == 0 {
			share = 1
		}
		n := to - from
		times := int(share)
		count := int(math.Round((share - float64(times)) * float64(n)))
		if times == 0 {
			count = max(count, 1)
		}
		part := b.part(n, count, epoch, uint64(first.source))
		for i := range n {
			k := times
			if part[i] {
				k++
			}
			for range k {
				list = append(list, from+i)
			}
		}
		from = to
	}
	if !b.o.Shuffle {
		return list
	}
	out := make([]int, len(list))
	for k, at := range shuffled(len(list), stream(b.o.Seed, "order", uint64(epoch))) {
		out[k] = list[at]
	}
	return out
}

// part chooses count of n rows for an epoch: the next ones of endless shuffles of the source.
func (b *Batcher) part(n, count, epoch int, source uint64) map[int]bool {
	out := map[int]bool{}
	if count == 0 {
		return out
	}
	at := epoch * count
	for cycle := at / n; len(out) < count; cycle++ {
		order := shuffled(n, stream(b.o.Seed, "share", source<<32|uint64(cycle)))
		for _, i := range order[max(at-cycle*n, 0):] {
			if len(out) < count {
				out[i] = true
			}
		}
	}
	return out
}

// stream names a sequence of random numbers.
func stream(seed uint64, name string, counter uint64) uint64 {
	for _, c := range []byte(name) {
		seed = mix(seed, uint64(c))
	}
	return mix(seed, counter)
}

// window is how many steps' worth of rows are sorted by length together: enough to group lengths, few enough for the order to
// stay that of the shuffle.
const window = 16

// at returns the plan of an epoch.
func (b *Batcher) at(epoch int) *epochPlan {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.epoch == epoch {
		return b.plan
	}
	rows := b.sequences(epoch)
	if b.o.Shuffle && b.o.Packing != "none" && b.o.Packing != "wrapped" { // best fit begins with the longest
		out := make([][]piece, len(rows))
		for k, at := range shuffled(len(rows), stream(b.o.Seed, "sequences", uint64(epoch))) {
			out[k] = rows[at]
		}
		rows = out
	}
	grouped := b.o.Shuffle && len(b.buckets) > 1
	if grouped {
		span := window * b.o.MicroBatch * b.o.GradAccum
		for from := 0; from < len(rows); from += span {
			slices.SortStableFunc(rows[from:min(from+span, len(rows))], func(x, y []piece) int { return b.bucket(size(x)) - b.bucket(size(y)) })
		}
	}
	p := &epochPlan{rows: len(rows)}
	for from := 0; from < len(rows); from += b.o.MicroBatch {
		m := micro{rows: rows[from:min(from+b.o.MicroBatch, len(rows))]}
		for _, r := range m.rows {
			m.length = max(m.length, b.bucket(size(r)))
			p.tokens += int64(size(r))
		}
		p.room += int64(m.length * b.o.MicroBatch)
		p.micros = append(p.micros, m)
	}
	if grouped { // batches of one length would follow each other otherwise
		out := make([]micro, len(p.micros))
		for k, at := range shuffled(len(p.micros), stream(b.o.Seed, "batches", uint64(epoch))) {
			out[k] = p.micros[at]
		}
		p.micros = out
	}
	b.epoch, b.plan = epoch, p
	return p
}

// StepsPerEpoch returns the number of optimizer steps of an epoch; the last one may have fewer rows.
func (b *Batcher) StepsPerEpoch(epoch int) int {
	return b.steps(b.at(epoch))
}

func (b *Batcher) steps(p *epochPlan) int {
	steps := (len(p.micros) + b.o.GradAccum - 1) / b.o.GradAccum
	if b.o.DropLast && p.rows < steps*b.o.GradAccum*b.o.MicroBatch {
		steps--
	}
	return steps
}

// Step returns the micro batches of optimizer step k of an epoch.
func (b *Batcher) Step(epoch, k int) []Batch {
	p := b.at(epoch)
	from := k * b.o.GradAccum
	if k < 0 || k >= b.steps(p) {
		return nil
	}
	var out []Batch
	for _, m := range p.micros[from:min(from+b.o.GradAccum, len(p.micros))] {
		out = append(out, b.build(m))
	}
	for len(out)%b.o.Replicas != 0 {
		out = append(out, b.build(micro{length: out[len(out)-1].Length}))
	}
	return out
}

// build lays a micro batch out.
func (b *Batcher) build(m micro) Batch {
	n := b.o.MicroBatch * m.length
	out := Batch{Rows: b.o.MicroBatch, Length: m.length, IDs: make([]int32, n), Targets: make([]int32, n), Weights: make([]float32, n),
		Positions: make([]int32, n), Segments: make([]int32, n), Lengths: make([]int32, b.o.MicroBatch), Class: make([]int32, b.o.MicroBatch), Examples: make([][]int, b.o.MicroBatch)}
	for i := range out.IDs {
		out.IDs[i] = b.o.PadID
		out.Positions[i] = int32(i % m.length)
	}
	for r := range out.Class {
		out.Class[r] = -1
	}
	for r, row := range m.rows {
		at := r * m.length
		for s, p := range row {
			e := &b.set.Examples[p.example]
			if s == 0 {
				out.Class[r] = int32(e.Class)
			}
			weight := e.Weight
			if weight == 0 {
				weight = 1
			}
			for i := p.from; i < p.to; i++ {
				out.IDs[at] = e.IDs[i]
				out.Segments[at] = int32(s + 1)
				out.Positions[at] = int32(i - p.from)
				if i+1 < p.to && e.Labels[i+1] != Ignored {
					out.Targets[at], out.Weights[at] = e.Labels[i+1], weight
				}
				at++
			}
			out.Examples[r] = append(out.Examples[r], p.example)
		}
		out.Lengths[r] = int32(at - r*m.length)
		out.Tokens += at - r*m.length
	}
	return out
}

// Shapes lists the shapes (rows, length) that can occur: what will be compiled.
func (b *Batcher) Shapes() [][2]int {
	var out [][2]int
	for _, k := range b.buckets {
		out = append(out, [2]int{b.o.MicroBatch, k})
	}
	return out
}

// PaddingShare returns the share of positions of the first epoch that are padding.
func (b *Batcher) PaddingShare() float64 {
	p := b.at(0)
	return 1 - float64(p.tokens)/float64(max(p.room, 1))
}

// Digest identifies the rows and the way they become batches, in hexadecimal.
func (b *Batcher) Digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%d %d %s %v %d %v %d\n", b.o.MicroBatch, b.o.GradAccum, b.o.Packing, b.buckets, b.o.MaxLength, b.o.Shuffle, b.o.Seed)
	for i := range b.set.Examples {
		e := &b.set.Examples[i]
		fmt.Fprintf(h, "%d %v %v\n", len(e.IDs), e.Weight, e.Share)
		_ = binary.Write(h, binary.LittleEndian, e.IDs) // a hash does not fail
		_ = binary.Write(h, binary.LittleEndian, e.Labels)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ShapeUse says what an epoch does with one shape.
type ShapeUse struct {
	Rows      int   `json:"rows"`
	Length    int   `json:"length"`
	Batches   int   `json:"batches"`   // micro batches
	Sequences int   `json:"sequences"` // rows that are no padding
	Tokens    int64 `json:"tokens"`    // that are no padding
}

// Use tells, for every shape, what the first epoch does with it.
func (b *Batcher) Use() []ShapeUse {
	var out []ShapeUse
	for _, s := range b.Shapes() {
		u := ShapeUse{Rows: s[0], Length: s[1]}
		for _, m := range b.at(0).micros {
			if m.length != u.Length {
				continue
			}
			u.Batches++
			u.Sequences += len(m.rows)
			for _, r := range m.rows {
				u.Tokens += int64(size(r))
			}
		}
		out = append(out, u)
	}
	return out
}

// Packing returns how rows share sequences.
func (b *Batcher) Packing() string { return b.o.Packing }
