package arch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func hasOf(names ...string) func(string) bool {
	return func(n string) bool { return slices.Contains(names, n) }
}

// experts makes names of n experts.
func experts(stem string, n int, projections ...string) []string {
	var out []string
	for e := range n {
		for _, p := range projections {
			out = append(out, fmt.Sprintf("%sexperts.%d.%s.weight", stem, e, p))
		}
	}
	return out
}

func TestPieces(t *testing.T) {
	const up, down = "m.0.mlp.experts.gate_up_proj", "m.0.mlp.experts.down_proj"
	qwen := experts("m.0.mlp.", 12, "down_proj", "gate_proj", "up_proj")
	mixtral := experts("m.0.block_sparse_moe.", 8, "w1", "w2", "w3")
	for _, tt := range []struct {
		name, tensor string
		names        []string
		want         []string
		err          string
	}{
		{"Qwen-MoE", up, qwen, experts("m.0.mlp.", 12, "gate_proj", "up_proj"), ""},
		{"Qwen-MoE down", down, qwen, experts("m.0.mlp.", 12, "down_proj"), ""},
		{"Mixtral", up, mixtral, experts("m.0.block_sparse_moe.", 8, "w1", "w3"), ""},
		{"Mixtral down", down, mixtral, experts("m.0.block_sparse_moe.", 8, "w2"), ""},
		{"Mixtral's router", "m.0.mlp.gate.weight", []string{"m.0.block_sparse_moe.gate.weight"}, []string{"m.0.block_sparse_moe.gate.weight"}, ""},
		{"fused under the old block", up, []string{"m.0.block_sparse_moe.experts.gate_up_proj"}, []string{"m.0.block_sparse_moe.experts.gate_up_proj"}, ""},
		{"no prefix", "mlp.experts.down_proj", experts("mlp.", 1, "gate_proj", "up_proj", "down_proj"), []string{"mlp.experts.0.down_proj.weight"}, ""},
		{"another layer", "m.1.mlp.experts.down_proj", qwen, nil, ""},
		{"no such thing", "m.0.norm.weight", qwen, nil, ""},
		{"not a block's experts", "m.0.notmlp.experts.down_proj", experts("m.0.notmlp.", 2, "gate_proj", "up_proj", "down_proj"), nil, ""},
		{"a hole", up, slices.DeleteFunc(slices.Clone(qwen), func(n string) bool { return strings.Contains(n, ".7.") }), nil, "m.0.mlp.experts.7.gate_proj.weight is missing"},
		{"the first missing", up, slices.DeleteFunc(slices.Clone(mixtral), func(n string) bool { return strings.Contains(n, "experts.0.") }), nil, "m.0.block_sparse_moe.experts.0.w1.weight is missing"},
		{"one projection missing", down, slices.DeleteFunc(slices.Clone(qwen), func(n string) bool { return strings.Contains(n, ".11.up") }), nil, "m.0.mlp.experts.11.up_proj.weight is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok, err := new(Arch).Pieces(tt.tensor, hasOf(tt.names...))
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if !slices.Equal(got, tt.want) || ok != (tt.want != nil) {
				t.Errorf("pieces %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFusedShape(t *testing.T) {
	const up, down = "x.mlp.experts.gate_up_proj", "x.mlp.experts.down_proj"
	for _, tt := range []struct {
		name, tensor string
		shapes       [][]int
		want         []int
		err          string
	}{
		{"gate and up", up, [][]int{{3, 5}, {3, 5}, {3, 5}, {3, 5}}, []int{2, 6, 5}, ""},
		{"down", down, [][]int{{5, 3}, {5, 3}, {5, 3}}, []int{3, 5, 3}, ""},
		{"one expert", down, [][]int{{5, 3}}, []int{1, 5, 3}, ""},
		{"fused already", up, [][]int{{2, 6, 5}}, []int{2, 6, 5}, ""},
		{"a renamed tensor", "x.mlp.gate.weight", [][]int{{8, 5}}, []int{8, 5}, ""},
		{"up differs", up, [][]int{{3, 5}, {4, 5}}, nil, "the up projection of expert 0 has shape [4 5]"},
		{"an expert differs", down, [][]int{{5, 3}, {5, 3}, {5, 4}}, nil, "the down projection of expert 2 has shape [5 4]"},
		{"no matrix", up, [][]int{{3}, {3}}, nil, "a matrix is expected"},
		{"odd", up, [][]int{{3, 5}, {3, 5}, {3, 5}}, nil, "no up projection"},
		{"nothing", up, nil, nil, "made of no tensor"},
		{"not experts", "x.w", [][]int{{1}, {1}}, nil, "is no fused expert tensor"},
	} {
		got, err := FusedShape(tt.tensor, tt.shapes)
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}

func TestPiecesFor(t *testing.T) {
	for _, tt := range []struct {
		out, in string
		pieces  []string
		want    []string
	}{
		{"m.7.mlp.experts.down_proj", "m.3.mlp.experts.down_proj", experts("m.3.block_sparse_moe.", 2, "w2"), experts("m.7.block_sparse_moe.", 2, "w2")},
		{"m.7.mlp.gate.weight", "m.3.mlp.gate.weight", []string{"m.3.block_sparse_moe.gate.weight"}, []string{"m.7.block_sparse_moe.gate.weight"}},
		{"m.7.norm", "m.3.norm", []string{"m.3.norm"}, []string{"m.7.norm"}},
	} {
		if got := PiecesFor(tt.out, tt.in, tt.pieces); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.out, got, tt.want)
		}
	}
}

func TestCheckExperts(t *testing.T) {
	const name = "m.mlp.experts.gate_up_proj"
	pieces := experts("m.mlp.", 3, "gate_proj", "up_proj")
	for _, tt := range []struct {
		config Config
		name   string
		pieces []string
		err    string
	}{
		{Config{"num_experts": 3}, name, pieces, ""},
		{Config{}, name, pieces, ""},
		{nil, name, nil, ""},
		{Config{"num_experts": 9}, "m.norm", []string{"m.norm"}, ""},
		{Config{"num_experts": 9}, name, []string{"m.block_sparse_moe.experts.gate_up_proj"}, ""},
		{Config{"num_local_experts": 4}, name, pieces, "m.mlp.experts.3.gate_proj.weight is missing"},
		{Config{"n_routed_experts": 2}, name, pieces, "has 3 experts where config.json says n_routed_experts 2"},
	} {
		err := CheckExperts(tt.config, tt.name, tt.pieces)
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%v: %v, want %q", tt.config, err, tt.err)
		}
	}
}

// TestMoECheckpoints resolves real expert layouts of every family that has fused tensors.
func TestMoECheckpoints(t *testing.T) {
	for _, m := range savedModels(t) {
		if !slices.Contains([]string{"mixtral", "qwen3moe", "glm4moe", "glm4moeqk"}, m.name) {
			continue
		}
		a, _ := Lookup(m.config)
		layers, _ := a.Modules[0].Layers(m.config)
		fused := 0
		for _, w := range a.Modules[0].Expanded(layers) {
			pieces, ok, err := a.Resolve(w, hasOf(m.names...))
			if err != nil || !ok && !w.Optional {
				t.Errorf("%s: %s: %v %v", m.name, w.Name, ok, err)
			}
			if len(pieces) > 1 {
				fused++
				if want := map[bool]int{true: 8, false: 4}[strings.HasSuffix(w.Name, "gate_up_proj")]; len(pieces) != want {
					t.Errorf("%s: %s has %d pieces, want %d", m.name, w.Name, len(pieces), want)
				}
				if err := CheckExperts(m.config, w.Name, pieces); err != nil {
					t.Error(err)
				}
			}
		}
		if want := map[string]int{"mixtral": 6, "qwen3moe": 6, "glm4moe": 4, "glm4moeqk": 2}[m.name]; fused != want {
			t.Errorf("%s: %d fused tensors, want %d", m.name, fused, want)
		}
		// One shard too few.
		if _, _, err := a.Match(m.config, slices.DeleteFunc(slices.Clone(m.names), func(n string) bool { return strings.Contains(n, "layers.2") && strings.Contains(n, "experts.1.") })); err == nil {
			t.Errorf("%s: an expert that is missing is no error", m.name)
		}
	}
}
