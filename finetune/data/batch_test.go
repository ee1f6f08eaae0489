package data

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
)

// The example of the specification: capacity 4, lengths 5, 2, 3, 1.
func TestPackGolden(t *testing.T) {
	lengths := []int{5, 2, 3, 1}
	for how, want := range map[string][][]piece{
		"none":      {{{0, 0, 4}}, {{1, 0, 2}}, {{2, 0, 3}}, {{3, 0, 1}}},
		"bfd":       {{{0, 0, 4}}, {{2, 0, 3}, {3, 0, 1}}, {{1, 0, 2}}},
		"bfd_split": {{{0, 0, 4}}, {{2, 0, 3}, {0, 4, 5}}, {{1, 0, 2}, {3, 0, 1}}},
		"wrapped":   {{{0, 0, 4}}, {{0, 4, 5}, {1, 0, 2}, {2, 0, 1}}, {{2, 1, 3}, {3, 0, 1}}},
	} {
		if got := pack(how, []int{0, 1, 2, 3}, func(i int) int { return lengths[i] }, 4); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", how, got, want)
		}
	}
}

// bestFit against the rule written down plainly: the fullest sequence with room, the oldest of those, else a new one.
func TestBestFit(t *testing.T) {
	for seed := range uint64(200) {
		capacity := 1 + int(mix(seed, 0)%40)
		var pieces []piece
		for i := range int(mix(seed, 1) % 80) {
			pieces = append(pieces, piece{i, 0, 1 + int(mix(seed, uint64(i+2))%uint64(capacity))})
		}
		sorted := slices.Clone(pieces)
		slices.SortStableFunc(sorted, func(a, b piece) int { return b.len() - a.len() })
		var want [][]piece
		for _, p := range sorted {
			best := -1
			for k, s := range want {
				if size(s)+p.len() <= capacity && (best < 0 || size(s) > size(want[best])) {
					best = k
				}
			}
			if best < 0 {
				want, best = append(want, nil), len(want)
			}
			want[best] = append(want[best], p)
		}
		if got := bestFit(pieces, capacity); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d, capacity %d:\n got %v\nwant %v", seed, capacity, got, want)
		}
	}
}

// randomSet makes rows of token ids that are all different, with masks and weights.
func randomSet(seed uint64, n, longest int) *Set {
	s := &Set{}
	id := int32(1)
	for i := range n {
		x := Example{Class: i, Weight: 1 + float32(i%3), Share: 1, Line: i + 1}
		for k := range 2 + int(mix(seed, uint64(i))%uint64(longest-1)) {
			x.IDs = append(x.IDs, id)
			if mix(seed, uint64(1000*i+k))%3 == 0 && k != 1 {
				x.Labels = append(x.Labels, Ignored)
			} else {
				x.Labels = append(x.Labels, id)
			}
			id++
		}
		s.Examples = append(s.Examples, x)
	}
	s.count()
	return s
}

// Every way to make batches shows every token once an epoch, in segments that are stretches of one example with positions from 0,
// and every learnt token once as a target of the token before it, but for those at which a row is cut.
func TestBatchesReconstruct(t *testing.T) {
	for _, packing := range packings {
		for _, o := range []BatchOptions{
			{MicroBatch: 1, GradAccum: 1}, {MicroBatch: 3, GradAccum: 2}, {MicroBatch: 4, GradAccum: 4, Shuffle: true, Seed: 5}, {MicroBatch: 2, GradAccum: 3, Shuffle: true, Replicas: 2},
			{MicroBatch: 5, GradAccum: 1, Shuffle: true, Buckets: []int{64, 10, 37}},
		} {
			t.Run(fmt.Sprint(packing, o), func(t *testing.T) {
				s := randomSet(uint64(o.MicroBatch), 57, 40)
				o.Packing, o.MaxLength, o.PadID = packing, 48, 7777777
				if packing == "bfd_split" || packing == "wrapped" {
					o.MaxLength = 24 // rows are cut
				}
				b, err := NewBatcher(s, o)
				if err != nil {
					t.Fatal(err)
				}
				for epoch := range 2 {
					checkEpoch(t, b, s, o, epoch)
				}
				if p := b.PaddingShare(); p < 0 || p > 0.9 {
					t.Errorf("padding share %v", p)
				}
			})
		}
	}
}

func checkEpoch(t *testing.T, b *Batcher, s *Set, o BatchOptions, epoch int) {
	t.Helper()
	seen, targets := map[int32]int{}, map[int32]int{}
	cuts := 0 // targets that are the first of a later piece
	shapes := b.Shapes()
	for k := range b.StepsPerEpoch(epoch) {
		step := b.Step(epoch, k)
		if n := max(o.Replicas, 1); len(step) == 0 || len(step)%n != 0 || len(step) > roundUp(o.GradAccum, n) {
			t.Fatalf("step %d has %d micro batches", k, len(step))
		}
		for _, m := range step {
			if !slices.Contains(shapes, [2]int{m.Rows, m.Length}) || m.Rows != o.MicroBatch {
				t.Errorf("shape %d x %d is none of %v", m.Rows, m.Length, shapes)
			}
			tokens := 0
			for r := range m.Rows {
				at := r * m.Length
				segment := int32(0)
				var example *Example
				from := 0
				for i := range m.Length {
					p := at + i
					if i >= int(m.Lengths[r]) {
						if m.Segments[p] != 0 || m.Weights[p] != 0 || m.Targets[p] != 0 || m.IDs[p] != o.PadID {
							t.Fatalf("padding at %d of row %d: %d %v %d %d", i, r, m.Segments[p], m.Weights[p], m.Targets[p], m.IDs[p])
						}
						continue
					}
					tokens++
					if m.Segments[p] != segment {
						segment++
						if m.Segments[p] != segment || m.Positions[p] != 0 {
							t.Fatalf("segment %d at position %d follows segment %d", m.Segments[p], m.Positions[p], segment-1)
						}
						example = &s.Examples[m.Examples[r][segment-1]]
						from = slices.Index(example.IDs, m.IDs[p])
						if from > 0 && example.Labels[from] != Ignored {
							cuts++
						}
					}
					j := from + int(m.Positions[p])
					if from < 0 || j >= len(example.IDs) || example.IDs[j] != m.IDs[p] || i > 0 && m.Positions[p] != 0 && m.Positions[p] != m.Positions[p-1]+1 {
						t.Fatalf("row %d, token %d is not the next of example %d", r, i, m.Examples[r][segment-1])
					}
					seen[m.IDs[p]]++
					last := i+1 >= int(m.Lengths[r]) || m.Segments[p+1] != segment
					switch {
					case m.Weights[p] == 0:
						if !last && example.Labels[j+1] != Ignored {
							t.Errorf("token %d has no target", m.IDs[p])
						}
					case last:
						t.Errorf("the last token of a segment has the target %d", m.Targets[p])
					case m.Targets[p] != example.Labels[j+1] || m.Targets[p] != m.IDs[p+1] || m.Weights[p] != example.Weight:
						t.Errorf("token %d has the target %d of weight %v", m.IDs[p], m.Targets[p], m.Weights[p])
					default:
						targets[m.Targets[p]]++
					}
				}
				if int(segment) != len(m.Examples[r]) {
					t.Errorf("%d segments of %d examples", segment, len(m.Examples[r]))
				}
				if want := int32(-1); len(m.Examples[r]) > 0 {
					want = int32(s.Examples[m.Examples[r][0]].Class)
					if m.Class[r] != want {
						t.Errorf("class %d", m.Class[r])
					}
				} else if m.Class[r] != want {
					t.Errorf("class %d of padding", m.Class[r])
				}
			}
			if tokens != m.Tokens {
				t.Errorf("%d tokens, says %d", tokens, m.Tokens)
			}
		}
	}
	want := 0
	for _, x := range s.Examples {
		for i, id := range x.IDs {
			if seen[id] != 1 {
				t.Fatalf("token %d occurs %d times", id, seen[id])
			}
			if i > 0 && x.Labels[i] != Ignored {
				want++
			}
		}
	}
	for id, n := range targets {
		if n != 1 {
			t.Errorf("%d is a target %d times", id, n)
		}
	}
	if len(targets)+cuts != want || cuts > 0 && (o.Packing == "none" || o.Packing == "bfd") {
		t.Errorf("%d targets and %d cut off, want %d", len(targets), cuts, want)
	}
}

// Without shuffling, step k takes the next rows of the file.
func TestFileOrder(t *testing.T) {
	s := &Set{}
	for i := range 23 {
		s.Examples = append(s.Examples, Example{IDs: []int32{int32(i), 1, 2, 3, 4}, Labels: []int32{-100, 1, 2, 3, 4}, Weight: 1, Share: 1})
	}
	b, err := NewBatcher(s, BatchOptions{MicroBatch: 2, GradAccum: 3})
	if err != nil {
		t.Fatal(err)
	}
	if shapes := b.Shapes(); !reflect.DeepEqual(shapes, [][2]int{{2, 8}}) {
		t.Errorf("shapes %v", shapes)
	}
	if n := b.StepsPerEpoch(0); n != 4 {
		t.Fatalf("%d steps", n)
	}
	row := 0
	for k := range 4 {
		for _, m := range b.Step(3, k) {
			for r := range m.Rows {
				if row < 23 && m.IDs[r*m.Length] != int32(row) {
					t.Errorf("row %d is %d", row, m.IDs[r*m.Length])
				}
				row++
			}
		}
	}
	if row != 24 { // one row of padding
		t.Errorf("%d rows", row)
	}
	if b, err = NewBatcher(s, BatchOptions{MicroBatch: 2, GradAccum: 3, DropLast: true}); err != nil || b.StepsPerEpoch(0) != 3 || b.Step(0, 3) != nil {
		t.Errorf("the last step of 5 rows is not dropped: %v", err)
	}
	if _, err = NewBatcher(s, BatchOptions{MicroBatch: 8, GradAccum: 3, DropLast: true}); err == nil {
		t.Error("an epoch without a step")
	}
}

// A batch is a function of seed, epoch and step; other seeds and epochs give other orders.
func TestDeterminism(t *testing.T) {
	s := randomSet(3, 200, 60)
	o := BatchOptions{MicroBatch: 4, GradAccum: 2, Shuffle: true, Seed: 11}
	a, _ := NewBatcher(s, o)
	b, _ := NewBatcher(s, o)
	for k := a.StepsPerEpoch(1) - 1; k >= 0; k-- { // backwards, as after a resume
		if !reflect.DeepEqual(a.Step(1, k), b.Step(1, k)) {
			t.Fatalf("step %d", k)
		}
		b.Step(0, 0)
	}
	digest := a.Digest()
	if digest != b.Digest() {
		t.Error("digests of equal plans")
	}
	first := func(o BatchOptions, epoch int) []int {
		b, err := NewBatcher(s, o)
		if err != nil {
			t.Fatal(err)
		}
		var out []int
		for k := range b.StepsPerEpoch(epoch) {
			for _, m := range b.Step(epoch, k) {
				for _, r := range m.Examples {
					out = append(out, r...)
				}
			}
		}
		return out
	}
	one := first(o, 0)
	if slices.Equal(one, first(o, 1)) {
		t.Error("two epochs have one order")
	}
	o.Seed++
	if c, _ := NewBatcher(s, o); c.Digest() == digest || slices.Equal(one, first(o, 0)) {
		t.Error("two seeds have one order")
	}
	x := s.Examples[0].Labels
	s.Examples[0].Labels = slices.Clone(x)
	s.Examples[0].Labels[1] = Ignored
	if c, _ := NewBatcher(s, BatchOptions{MicroBatch: 4, GradAccum: 2, Shuffle: true, Seed: 11}); c.Digest() == digest {
		t.Error("other labels, the same digest")
	}
	s.Examples[0].Labels = x
}

// The order of a shuffled epoch is not one of lengths, though batches have rows of like length.
func TestShuffleIsFair(t *testing.T) {
	s := randomSet(9, 4000, 120)
	b, err := NewBatcher(s, BatchOptions{MicroBatch: 4, GradAccum: 1, Shuffle: true, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(b.Shapes()); n < 2 || n > maxBuckets {
		t.Errorf("%d shapes", n)
	}
	steps := b.StepsPerEpoch(0)
	var half [2]float64
	var place float64
	for k := range steps {
		for _, m := range b.Step(0, k) {
			for _, r := range m.Examples {
				for _, i := range r {
					half[2*k/steps] += float64(len(s.Examples[i].IDs)) / 2000
					place += float64(k) / float64(steps) * float64(i) / 4000 / 4000
				}
			}
		}
	}
	// The mean length is 61; of 2000 rows its standard error is 0.8.
	if math.Abs(half[0]-half[1]) > 5 {
		t.Errorf("mean lengths of the two halves of an epoch: %.1f and %.1f", half[0], half[1])
	}
	// Place in the epoch and place in the file: uncorrelated, so the mean of the product is a quarter (standard error 0.0013).
	if math.Abs(place-0.25) > 0.008 {
		t.Errorf("mean of place times place: %.4f", place)
	}
	if p := b.PaddingShare(); p > 0.25 { // lengths are multiples of 32: 16 tokens of padding on 61 on average
		t.Errorf("%.0f %% padding with %v", 100*p, b.Shapes())
	}
}

func TestShares(t *testing.T) {
	s := &Set{}
	for i := range 30 {
		source := i / 10
		s.Examples = append(s.Examples, Example{IDs: []int32{int32(i), 1}, Labels: []int32{Ignored, 1}, Weight: 1, Share: []float64{1, 0.5, 2.3}[source], source: source})
	}
	b, err := NewBatcher(s, BatchOptions{MicroBatch: 1, GradAccum: 1, Shuffle: true, Seed: 4})
	if err != nil {
		t.Fatal(err)
	}
	total := map[int32]int{}
	for epoch := range 4 {
		count := [3]int{}
		if n := b.StepsPerEpoch(epoch); n != 10+5+23 {
			t.Errorf("epoch %d has %d steps", epoch, n)
		}
		for k := range b.StepsPerEpoch(epoch) {
			id := b.Step(epoch, k)[0].IDs[0]
			count[id/10]++
			total[id]++
		}
		if count != [3]int{10, 5, 23} {
			t.Errorf("epoch %d takes %v rows", epoch, count)
		}
	}
	for i := range int32(30) {
		if want := []int{4, 2}; i < 20 && total[i] != want[i/10] {
			t.Errorf("row %d occurs %d times in four epochs", i, total[i])
		}
		if n := total[i]; i >= 20 && (n < 8 || n > 12) {
			t.Errorf("row %d occurs %d times in four epochs of 2.3", i, n)
		}
	}
}

func TestBuckets(t *testing.T) {
	row := func(lengths ...int) *Set {
		s := &Set{}
		for _, n := range lengths {
			s.Examples = append(s.Examples, Example{IDs: make([]int32, n), Labels: make([]int32, n), Weight: 1, Share: 1})
		}
		return s
	}
	repeat := func(times int, lengths ...int) (out []int) {
		for range times {
			out = append(out, lengths...)
		}
		return out
	}
	for name, test := range map[string]struct {
		set  *Set
		o    BatchOptions
		want []int
	}{
		"one length":            {row(repeat(50, 21)...), BatchOptions{}, []int{24}},
		"few rows":              {row(3, 100, 500), BatchOptions{Shuffle: true}, []int{512}},
		"short rows":            {row(repeat(100, 5, 60)...), BatchOptions{Shuffle: true}, []int{16, 64}},
		"two lengths":           {row(repeat(100, 20, 1000)...), BatchOptions{Shuffle: true}, []int{32, 1024}},
		"in order, all alike":   {row(repeat(100, 20, 20, 20, 1000)...), BatchOptions{MicroBatch: 4}, []int{1024}},
		"given":                 {row(repeat(5, 20, 100)...), BatchOptions{Buckets: []int{256, 128, 24, 128}}, []int{24, 128}},
		"packed":                {row(repeat(10, 20, 30)...), BatchOptions{Packing: "bfd", MaxLength: 64}, []int{64}},
		"packed, nothing fills": {row(repeat(10, 40)...), BatchOptions{Packing: "bfd", MaxLength: 64}, []int{40}},
		"wrapped":               {row(repeat(10, 20, 30)...), BatchOptions{Packing: "wrapped", MaxLength: 64}, []int{64}},
	} {
		b, err := NewBatcher(test.set, test.o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []int
		for _, s := range b.Shapes() {
			got = append(got, s[1])
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	if _, err := NewBatcher(row(100), BatchOptions{Buckets: []int{64}}); err == nil {
		t.Error("a row that is longer than the largest bucket")
	}
	if _, err := NewBatcher(row(100), BatchOptions{Packing: "tight"}); err == nil {
		t.Error("an unknown packing")
	}
	if _, err := NewBatcher(&Set{}, BatchOptions{}); err == nil {
		t.Error("no rows")
	}
	// Against every choice of buckets.
	for seed := range uint64(60) {
		var lengths []int
		for i := range 30 {
			lengths = append(lengths, 1+int(mix(seed, uint64(i))%120))
		}
		slices.Sort(lengths)
		got := buckets(lengths, lengths[29], 16, 3)
		cost := func(b []int) (n int) {
			for _, l := range lengths {
				n += bucketOf(b, l)
			}
			return n
		}
		top := roundUp(lengths[29], 16)
		best := cost([]int{top})
		for a := 16; a < top; a += 16 {
			for c := a; c < top; c += 16 {
				best = min(best, cost([]int{a, c, top}))
			}
		}
		if c := cost(got); len(got) > 3 || got[len(got)-1] != top || 50*(c-best) > c {
			t.Errorf("seed %d: %v costs %d, the best three %d", seed, got, c, best)
		}
	}
}
