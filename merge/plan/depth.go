package plan

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/arch"
)

// stacks are where the layers of each module begin in the stack that they belong to, and how long that is. Every module is a stack of
// its own, but in inferred descriptions names that differ in a final number (layer1, layer2, … of a ResNet) are one stack in parts.
func (b *builder) stacks() (from, length []int) {
	from, length = make([]int, len(b.modules)), make([]int, len(b.modules))
	name := func(i int) string {
		if n := strings.TrimRight(b.modules[i].desc.Name, "0123456789"); b.Arch.Inferred && n != "" {
			return n
		}
		return b.modules[i].desc.Name
	}
	sum := map[string]int{}
	for i := range b.modules {
		from[i] = sum[name(i)]
		sum[name(i)] += b.modules[i].layers()
	}
	for i := range b.modules {
		length[i] = sum[name(i)]
	}
	return from, length
}

// layers counts the layers of the module in the output.
func (m *module) layers() int {
	n := 0
	for _, s := range m.slices {
		n += s.sources[0].layers
	}
	return n
}

// depthOf is the place of a layer in its stack, from 0 to 1. A single layer is the last one, as gradients over layers have it.
func depthOf(layer, layers int) float64 {
	if layers < 2 {
		return 1
	}
	return float64(layer) / float64(layers-1)
}

// outside is the depth of a tensor that is in no layer: 0 of what comes before the layers, 1 of what comes after, NaN where no module
// has any. Inferred descriptions do not know what comes after; there the name decides, and numbers that names end with (layer1, layer2)
// are layers where the description has none.
func (b *builder) outside(w arch.Weight, after bool) float64 {
	if !slices.ContainsFunc(b.modules, func(m module) bool { return m.layers() > 0 }) {
		numbers := b.endings()
		if len(numbers) < 2 {
			return math.NaN()
		}
		if _, n, ok := ending(w.Name); ok {
			if i, found := slices.BinarySearch(numbers, n); found {
				return depthOf(i, len(numbers))
			}
		}
	}
	if b.Arch.Inferred {
		after = slices.ContainsFunc(strings.Split(w.Name, "."), func(part string) bool {
			return slices.Contains([]string{"norm", "ln_f", "final_norm", "final_layernorm", "layernorm", "fc"}, part) || isHead(part)
		})
	}
	if after {
		return 1
	}
	return 0
}

// endings are the numbers that the names of layers end with, in order; none where names of several kinds are numbered differently, so
// that nobody knows which come first.
func (b *builder) endings() []int {
	if b.numbers != nil {
		return b.numbers
	}
	b.numbers = []int{}
	sets := map[string]map[int]bool{}
	for i := range b.modules {
		for _, w := range slices.Concat(b.modules[i].desc.Pre, b.modules[i].desc.Post) {
			stem, n, ok := ending(w.Name)
			if ok && sets[stem] == nil {
				sets[stem] = map[int]bool{}
			}
			if ok {
				sets[stem][n] = true
			}
		}
	}
	var all map[int]bool
	for _, set := range sets {
		switch {
		case len(set) < 2:
		case all == nil:
			all = set
		case !maps.Equal(all, set):
			return b.numbers
		}
	}
	b.numbers = slices.AppendSeq(b.numbers, maps.Keys(all))
	slices.Sort(b.numbers)
	return b.numbers
}

// ending splits the first part of a name that ends with a number: layer12.weight gives layer and 12.
func ending(name string) (stem string, n int, ok bool) {
	for _, part := range strings.Split(name, ".") {
		stem := strings.TrimRight(part, "0123456789")
		if n, err := strconv.Atoi(part[len(stem):]); err == nil && stem != "" {
			return stem, n, true
		}
	}
	return "", 0, false
}

// isHead tells whether a part of a tensor's name is that of an output layer.
func isHead(part string) bool {
	return slices.Contains([]string{"lm_head", "head", "score", "classifier", "embed_out", "qa_outputs", "output"}, part)
}

// kind says what the axes of a task's tensor are, by its name and shape: whether it is an embedding or a head, a stack of matrices,
// and whether its matrices are stored [inputs, outputs].
func (p *Plan) kind(t *Task) (table, stacked, turned bool) {
	parts := strings.Split(strings.TrimSuffix(t.Name, ".weight"), ".")
	last := parts[len(parts)-1]
	within := slices.ContainsFunc(parts, isNumber)
	switch {
	case strings.Contains(last, "patch") || strings.Contains(t.Name, "patch_embed"): // a convolution of the pixels
	case t.vocabulary, strings.Contains(last, "embed"), slices.Contains([]string{"wte", "wpe", "shared", "cls_token", "relative_attention_bias"}, last):
		table = true
	case !within && (isHead(last) || last == "out_proj" && slices.ContainsFunc(parts, isHead)):
		table = true
	}
	stacked = len(t.Shape) == 3 && (strings.Contains(t.Name, "experts") || strings.Contains(t.Name, "moe"))
	family := ""
	if p.Arch != nil {
		family = p.Arch.ModelType
	}
	switch {
	case family == "gpt2" || family == "jais":
		turned = slices.Contains([]string{"c_attn", "c_proj", "c_fc", "c_fc2", "q_attn"}, last)
	case strings.HasPrefix(family, "llama4"):
		turned = stacked
	}
	return table, stacked, turned
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
