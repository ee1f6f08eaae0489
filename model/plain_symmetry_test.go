package model_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
)

// groupsOf writes a spec down, one group a line.
func groupsOf(s *symmetry.Spec) string {
	var b strings.Builder
	for _, g := range s.Groups {
		fmt.Fprintf(&b, "%s %v %d:", g.ID, g.Kinds, g.Size)
		for _, r := range g.Refs {
			fmt.Fprintf(&b, " %s[%d]%s", r.Tensor, r.Axis, map[symmetry.Role]string{symmetry.Write: "w", symmetry.Read: "r", symmetry.Gain: "g"}[r.Role])
			if r.Offset > 0 {
				fmt.Fprintf(&b, "@%d", r.Offset)
			}
			if r.Block > 1 {
				fmt.Fprintf(&b, "*%d", r.Block)
			}
			if r.Silent {
				b.WriteString("!")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestPlainSymmetry has whole specs: package merge/align proves by computing that networks like these have them.
func TestPlainSymmetry(t *testing.T) {
	read := func(name string) string {
		data, err := os.ReadFile("../merge/align/tiny/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for _, c := range []struct{ name, config, want string }{
		{"mlp", `{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "linear", "name": "a", "out": 4}, {"type": "relu"}, {"type": "linear", "name": "b", "out": 5, "bias": false},
			{"type": "gelu"}, {"type": "linear", "name": "c", "out": 6}, {"type": "tanh"}, {"type": "dropout"}, {"type": "linear", "name": "d", "out": 7}, {"type": "linear", "name": "e", "out": 2}]}`, `
hidden.a [perm scaled_perm] 4: a.weight[0]w a.bias[0]w b.weight[1]r
hidden.b [perm] 5: b.weight[0]w c.weight[1]r
hidden.c [perm signed_perm] 6: c.weight[0]w c.bias[0]w d.weight[1]r
hidden.d [perm signed_perm scaled_perm] 7: d.weight[0]w d.bias[0]w e.weight[1]r
`},
		{"vgg", read("vgg"), `
hidden.features.0 [perm scaled_perm] 5: features.0.weight[0]w features.0.bias[0]w features.3.weight[1]r
hidden.features.3 [perm] 6: features.3.weight[0]w features.4.weight[0]g features.4.bias[0]w features.4.running_mean[0]w! features.4.running_var[0]g! classifier.0.weight[1]r*4
hidden.classifier.0 [perm scaled_perm] 9: classifier.0.weight[0]w classifier.0.bias[0]w classifier.3.weight[1]r
`},
		{"resnet", read("resnet"), `
res.conv1 [perm] 6: conv1.weight[0]w bn1.weight[0]g bn1.bias[0]w bn1.running_mean[0]w! bn1.running_var[0]g! layer1.0.conv1.weight[1]r layer1.0.conv2.weight[0]w layer1.0.bn2.weight[0]g layer1.0.bn2.bias[0]w layer1.0.bn2.running_mean[0]w! layer1.0.bn2.running_var[0]g! layer2.0.conv1.weight[1]r layer2.0.downsample.0.weight[1]r
hidden.layer1.0.conv1 [perm scaled_perm] 5: layer1.0.conv1.weight[0]w layer1.0.conv1.bias[0]w layer1.0.conv2.weight[1]r
hidden.layer2.0.conv1 [perm] 8: layer2.0.conv1.weight[0]w layer2.0.bn1.weight[0]g layer2.0.bn1.bias[0]w layer2.0.bn1.running_mean[0]w! layer2.0.bn1.running_var[0]g! layer2.0.conv2.weight[0]g layer2.0.bn2.weight[0]g layer2.0.bn2.bias[0]w layer2.0.bn2.running_mean[0]w! layer2.0.bn2.running_var[0]g! layer2.0.conv3.weight[1]r
res.layer2.0.conv3 [perm] 7: layer2.0.conv3.weight[0]w layer2.0.bn3.weight[0]g layer2.0.bn3.bias[0]w layer2.0.bn3.running_mean[0]w! layer2.0.bn3.running_var[0]g! layer2.0.downsample.0.weight[0]w layer2.0.downsample.1.running_mean[0]w! layer2.0.downsample.1.running_var[0]g! layer2.1.square.weight[1]r! layer2.1.square.weight[0]w! layer2.1.square.bias[0]w spread.weight[0]g*2 spread.bias[0]w*2 fc.weight[1]r*2
`},
		{"groups", read("groups"), `
hidden.grouped.0 [perm] 4: grouped.weight[0]w grouped.bias[0]w norm.weight[0]g norm.bias[0]w next.weight[1]r
hidden.grouped.1 [perm] 4: grouped.weight[0]w@4 grouped.bias[0]w@4 norm.weight[0]g@4 norm.bias[0]w@4 next.weight[1]r@4
hidden.next [perm] 5: next.weight[0]w next.bias[0]w fc.weight[1]r*9
`},
		{"pre-activation", `{"model_type": "convnet", "input_shape": [1, 4, 4], "layers": [{"type": "conv2d", "name": "stem", "out": 4, "kernel": 1},
			{"type": "residual", "layers": [{"type": "batch_norm", "name": "n"}, {"type": "relu"}, {"type": "conv2d", "name": "a", "out": 3, "kernel": 1}, {"type": "relu"}, {"type": "conv2d", "name": "b", "out": 4, "kernel": 1}]},
			{"type": "global_avg_pool"}, {"type": "linear", "name": "fc", "out": 2}]}`, `
res.stem [perm] 4: stem.weight[0]w stem.bias[0]w n.weight[0]g n.bias[0]w n.running_mean[0]w! n.running_var[0]g! a.weight[1]r b.weight[0]w b.bias[0]w fc.weight[1]r
hidden.a [perm scaled_perm] 3: a.weight[0]w a.bias[0]w b.weight[1]r
`},
	} {
		d, err := model.DescribePlain([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		s, err := d.Symmetry()
		if err != nil {
			t.Fatal(err)
		}
		if got := groupsOf(s); got != strings.TrimPrefix(c.want, "\n") {
			t.Errorf("%s:\n%s", c.name, got)
		}
		for _, g := range s.Groups {
			if scaled := len(g.Kinds) == 2 && g.Kinds[1] == symmetry.ScaledPerm; g.Positive != scaled {
				t.Errorf("%s: %s: positive %v", c.name, g.ID, g.Positive)
			}
		}
	}
	d, err := model.DescribePlain([]byte(`{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "linear", "name": "a", "out": 4}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Symmetry(); err == nil || !strings.Contains(err.Error(), "without hidden features") {
		t.Error(err)
	}
}
