package surgeon

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/tensors"
)

// entry is a token of a made vocabulary with its row.
type entry struct {
	text    string
	special bool
	row     []float32
}

// made writes a model that is nothing but a vocabulary: a list of words, an embedding, and rows for ids beyond the words.
func made(t *testing.T, list []entry, spare [][]float32, config map[string]any) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	vocab, added := map[string]int{}, []map[string]any{}
	var flat []float32
	for id, e := range list {
		if e.special {
			added = append(added, map[string]any{"id": id, "content": e.text, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
		}
		vocab[e.text] = id
		flat = append(flat, e.row...)
	}
	for _, r := range spare {
		flat = append(flat, r...)
	}
	width := len(list[0].row)
	tok := map[string]any{"version": "1.0", "added_tokens": added, "normalizer": nil, "pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		"post_processor": nil, "decoder": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []string{}}}
	all := map[string]any{"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "vocab_size": len(list), "hidden_size": width, "num_hidden_layers": 0, "tie_word_embeddings": true}
	for k, v := range config {
		all[k] = v
	}
	infos := []tensors.Info{{Name: "model.embed_tokens.weight", DType: tensors.F32, Shape: []int{len(flat) / width, width}}, {Name: "model.norm.weight", DType: tensors.F32, Shape: []int{width}}}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range [][]float32{flat, make([]float32, width)} {
		raw := make([]byte, 4*len(data))
		if err := tensors.EncodeFloat32(raw, tensors.F32, data); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteAt(i, raw, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(i); err != nil {
			t.Fatal(err)
		}
	}
	for name, v := range map[string]any{"tokenizer.json": tok, "config.json": all, "tokenizer_config.json": map[string]any{}} {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteFile(name, raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func normalRow(width int, name string) []float32 {
	x := make([]float32, width)
	linalg.Normal(x, 3, name)
	return x
}

// spaces makes two vocabularies that share n tokens, the donor with more of its own, whose rows are all the image of a row in the model's space;
// it returns the directories and the rows that the new tokens have there.
func spaces(t *testing.T, n, more, own, theirs int, image func(x []float32) []float32) (model, donor string, want [][]float32) {
	t.Helper()
	var m, d []entry
	for i := range n + more {
		x := normalRow(own, fmt.Sprint("row ", i))
		e := entry{text: fmt.Sprintf("Ġtoken%d", i), row: x}
		if i < n {
			m = append(m, e)
		} else {
			want = append(want, x)
		}
		d = append(d, entry{text: e.text, row: image(x)})
	}
	slices.Reverse(m) // other ids
	return made(t, m, nil, nil), made(t, d, nil, nil), want
}

// rotation is an orthogonal matrix.
func rotation(t *testing.T, n int) []float64 {
	t.Helper()
	x := make([]float64, n*n)
	for i, v := range normalRow(n*n, "rotation") {
		x[i] = float64(v)
	}
	q, _, err := linalg.Isometry(linalg.Of64(x, n, n), 0)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// times is x·W for W [len(x), n].
func times(x []float32, w []float64, n int) []float32 {
	out := make([]float32, n)
	for j := range n {
		sum := 0.0
		for i, v := range x {
			sum += float64(v) * w[i*n+j]
		}
		out[j] = float32(sum)
	}
	return out
}

// TestSpaces: where the donor's space is the model's, turned and moved, the rotation finds it; where it is any linear image, the basis does; and a
// sum of two landmarks is found by both pursuits.
func TestSpaces(t *testing.T) {
	const n, more, d = 80, 7, 12
	turn := rotation(t, d)
	moved := func(x []float32) []float32 {
		y := times(x, turn, d)
		for j := range y {
			y[j] += float32(j) / 4
		}
		return y
	}
	skew := make([]float64, d*(d+5))
	for i, v := range normalRow(len(skew), "skew") {
		skew[i] = float64(v)
	}
	for _, c := range []struct {
		method string
		image  func(x []float32) []float32
		width  int
	}{
		{"landmark_pca", moved, d}, {"stb", func(x []float32) []float32 { return times(x, skew, d+5) }, d + 5},
		{"omp", func(x []float32) []float32 { return times(x, skew, d+5) }, d + 5},
	} {
		model, donor, want := spaces(t, n, more, d, c.width, c.image)
		out, r := operated(t, model, donor, Options{Method: c.method})
		x, _ := matrixOf(t, open(t, out), "model.embed_tokens.weight")
		for i, row := range want {
			for j, v := range row {
				if got := x[(n+i)*d+j]; math.Abs(float64(got-v)) > 1e-4 {
					t.Fatalf("%s: token %d: %v, want %v; %+v", c.method, i, x[(n+i)*d:][:d], row, r.Sites)
				}
			}
		}
	}
}

// TestTurned: a token that is a landmark turned by three places comes out as the model's row turned by three places with the model's angles.
func TestTurned(t *testing.T) {
	const d, head = 16, 8
	angle := func(theta float64) angles {
		a := angles{head: head, turns: make([]float64, head/2)}
		for i := range a.turns {
			a.turns[i] = math.Pow(theta, -2*float64(i)/head)
		}
		return a
	}
	turned := func(a angles, x []float32, places int) []float32 {
		wide, out, narrow := make([]float64, len(x)), make([]float64, len(x)), make([]float32, len(x))
		widen(wide, x)
		a.turn(out, wide, places)
		for i, v := range out {
			narrow[i] = float32(v)
		}
		return narrow
	}
	var m, donor []entry
	for i := range 40 {
		name := fmt.Sprintf("Ġtoken%d", i)
		x := make([]float32, d)
		if i < d/2 { // one pair of values each, so that a turned landmark is nearest to itself
			x[i/4*8+i%4] = 1 + float32(i)/10
		}
		m, donor = append(m, entry{text: name, row: normalRow(d, name)}), append(donor, entry{text: name, row: x})
	}
	donor = append(donor, entry{text: "Ġnew", row: turned(angle(500), donor[5].row, 3)})
	rope := func(theta float64) map[string]any {
		return map[string]any{"num_attention_heads": d / head, "rope_theta": theta}
	}
	out, _ := operated(t, made(t, m, nil, rope(10000)), made(t, donor, nil, rope(500)), Options{Method: "mp_rope", K: 1})
	x, _ := matrixOf(t, open(t, out), "model.embed_tokens.weight")
	for j, v := range turned(angle(10000), m[5].row, 3) {
		if math.Abs(float64(x[40*d+j]-v)) > 1e-5 {
			t.Fatalf("%v, want %v", x[40*d:][:d], turned(angle(10000), m[5].row, 3))
		}
	}
}

// TestGaussian: rows have the mean and the covariance of the model's.
func TestGaussian(t *testing.T) {
	const d, n, more = 4, 400, 3000
	root := []float64{1, 0, 0, 0, .8, .6, 0, 0, 0, .3, 2, 0, 0, 0, 0, .1}
	model, donor, _ := spaces(t, n, more, d, d, func(x []float32) []float32 { return x })
	c := open(t, model)
	v, err := c.View("model.embed_tokens.weight")
	if err != nil {
		t.Fatal(err)
	}
	var m []entry
	for i := range n {
		x := make([]float32, d)
		if err := tensors.DecodeFloat32(x, v.Data[i*4*d:(i+1)*4*d], tensors.F32); err != nil {
			t.Fatal(err)
		}
		y := times(x, root, d)
		for j := range y {
			y[j] += float32(j)
		}
		m = append(m, entry{text: fmt.Sprintf("Ġtoken%d", n-1-i), row: y})
	}
	stats := func(x []float32) (mean [d]float64, cov [d * d]float64) {
		k := float64(len(x) / d)
		for i, v := range x {
			mean[i%d] += float64(v) / k
		}
		for i := 0; i < len(x); i += d {
			for a := range d {
				for b := range d {
					cov[a*d+b] += (float64(x[i+a]) - mean[a]) * (float64(x[i+b]) - mean[b]) / k
				}
			}
		}
		return mean, cov
	}
	var flat []float32
	for _, e := range m {
		flat = append(flat, e.row...)
	}
	out, _ := operated(t, made(t, m, nil, nil), donor, Options{Method: "john_hewitt", Seed: 1})
	x, _ := matrixOf(t, open(t, out), "model.embed_tokens.weight")
	mean, cov := stats(flat)
	gotMean, gotCov := stats(x[n*d:])
	for i := range mean {
		if math.Abs(mean[i]-gotMean[i]) > 0.12 { // four deviations of a mean of 3000
			t.Errorf("mean %v, want %v", gotMean, mean)
		}
	}
	for i := range cov {
		if math.Abs(cov[i]-gotCov[i]) > 0.1*math.Sqrt(cov[i/d*(d+1)]*cov[i%d*(d+1)]) {
			t.Errorf("covariance %v, want %v", gotCov, cov)
			break
		}
	}
	// randn is standard normal, scaled; noise is added.
	out, _ = operated(t, model, donor, Options{Method: "randn", Scale: 3, Seed: 1})
	x, _ = matrixOf(t, open(t, out), "model.embed_tokens.weight")
	gotMean, gotCov = stats(x[n*d:])
	if math.Abs(gotMean[0]) > 0.25 || math.Abs(gotCov[0]-9) > 1 || math.Abs(gotCov[1]) > 0.7 {
		t.Errorf("randn: mean %v, covariance %v", gotMean, gotCov)
	}
}

// TestMagikarp: tokens that were hardly trained are no landmarks; a row that the model hardly trained is approximated, and what neither has
// learnt is zero.
func TestMagikarp(t *testing.T) {
	const d, n = 8, 300
	var m, donor []entry
	for i := range n {
		name := fmt.Sprintf("Ġtoken%d", i)
		m, donor = append(m, entry{text: name, row: normalRow(d, "m"+name)}), append(donor, entry{text: name, row: normalRow(d, "d"+name)})
	}
	tiny := func(x []float32) {
		for j := range x {
			x[j] *= 1e-3
		}
	}
	for _, i := range []int{10, 11} {
		tiny(m[i].row)
	}
	for _, i := range []int{11, 12} {
		tiny(donor[i].row)
	}
	// Token 20 lies where rows without a token lie.
	idle := normalRow(d, "idle")
	m[20].row = slices.Clone(idle)
	out, r := operated(t, made(t, m, [][]float32{idle, idle}, nil), made(t, donor, nil, nil), Options{Magikarp: true, K: 4})
	x, _ := matrixOf(t, open(t, out), "model.embed_tokens.weight")
	is := func(id int, row []float32) bool { return slices.Equal(x[id*d:][:d], row) }
	if !is(11, make([]float32, d)) {
		t.Error("what neither has learnt is not zero")
	}
	if is(10, m[10].row) || is(10, make([]float32, d)) {
		t.Error("a row that was hardly trained is copied, or not approximated")
	}
	if is(20, m[20].row) {
		t.Error("a row like those without a token is copied")
	}
	if !is(12, m[12].row) || !is(30, m[30].row) {
		t.Error("a trained row is not copied")
	}
	if s := r.Sites[0]; s.Zero != 1 || s.Landmarks >= s.Copied || s.Copied+s.Approximated+s.Zero != n {
		t.Errorf("%+v", s)
	}
}

// TestMagikarpReserved: tokens that are there for later count as never used, although they have rows and ids.
func TestMagikarpReserved(t *testing.T) {
	const d, n = 8, 300
	var m, donor []entry
	for i := range n {
		name := fmt.Sprintf("Ġtoken%d", i)
		m, donor = append(m, entry{text: name, row: normalRow(d, "m"+name)}), append(donor, entry{text: name, row: normalRow(d, "d"+name)})
	}
	idle := normalRow(d, "idle")
	for i := range 2 {
		e := entry{text: fmt.Sprintf("<|reserved_special_token_%d|>", i), special: true, row: idle}
		m, donor = append(m, e), append(donor, e)
	}
	m[20].row = slices.Clone(idle)
	out, _ := operated(t, made(t, m, nil, nil), made(t, donor, nil, nil), Options{Magikarp: true, K: 4})
	x, _ := matrixOf(t, open(t, out), "model.embed_tokens.weight")
	if !slices.Equal(x[n*d:], make([]float32, 2*d)) {
		t.Error("tokens that neither model has used are not zero")
	}
	if slices.Equal(x[20*d:][:d], idle) || !slices.Equal(x[30*d:][:d], m[30].row) {
		t.Error("a row like those of reserved tokens is copied, or a trained one is not")
	}
}

// TestBarycentric: where more landmarks are given than fix the weights, the shortest weights of sum one are taken, whichever landmark is the
// nearest. Around the middle of the square those of (0.5, 0) are 0.25 ± 0.25 along x.
func TestBarycentric(t *testing.T) {
	var m, donor []entry
	for i, corner := range [][]float32{{1, 0}, {-1, 0}, {0, 1}, {0, -1}} {
		name, row := fmt.Sprintf("Ġcorner%d", i), make([]float32, 4)
		row[i] = 1 // the model's row of a sum is its weights
		m, donor = append(m, entry{text: name, row: row}), append(donor, entry{text: name, row: corner})
	}
	donor = append(donor, entry{text: "Ġnew", row: []float32{0.5, 0}})
	out, _ := operated(t, made(t, m, nil, nil), made(t, donor, nil, nil), Options{Method: "common_interpolation", Scheme: "barycentric", K: 4})
	x, _ := matrixOf(t, open(t, out), "model.embed_tokens.weight")
	for i, want := range []float64{0.5, 0, 0.25, 0.25} {
		if got := float64(x[4*4+i]); math.Abs(got-want) > 1e-6 {
			t.Errorf("weight %d is %v, want %v", i, got, want)
		}
	}
}

// TestBeyond: ids without a row in the donor are no error; their rows are zero, and the report counts them.
func TestBeyond(t *testing.T) {
	const d, n = 6, 20
	var m, donor []entry
	for i := range n {
		name := fmt.Sprintf("Ġtoken%d", i)
		m, donor = append(m, entry{text: name, row: normalRow(d, "m"+name)}), append(donor, entry{text: name, row: normalRow(d, "d"+name)})
	}
	dir := made(t, donor, nil, nil)
	raw, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	var tok map[string]any
	if err := json.Unmarshal(raw, &tok); err != nil {
		t.Fatal(err)
	}
	tok["added_tokens"] = []any{map[string]any{"id": n, "content": "<late>", "special": false, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}}
	if raw, err = json.Marshal(tok); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), raw, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"omp", "common_interpolation", "landmark_pca", "stb"} {
		out, r := operated(t, made(t, m, nil, nil), dir, Options{Method: method, K: 3})
		x, shape := matrixOf(t, open(t, out), "model.embed_tokens.weight")
		if shape[0] != n+1 || !slices.Equal(x[n*d:], make([]float32, d)) || r.Sites[0].Unknown != 1 || len(r.Warnings) != 1 {
			t.Errorf("%s: shape %v, %+v, %v", method, shape, r.Sites, r.Warnings)
		}
	}
}

// TestNoNumbers: rows of the donor that are NaN or infinite, of tokens to approximate and of landmarks, make no NaN in the output and stop nothing.
func TestNoNumbers(t *testing.T) {
	const d, n = 6, 20
	var m, donor []entry
	for i := range n {
		name := fmt.Sprintf("Ġtoken%d", i)
		m, donor = append(m, entry{text: name, row: normalRow(d, "m"+name)}), append(donor, entry{text: name, row: normalRow(d, "d"+name)})
	}
	nan, inf := make([]float32, d), make([]float32, d)
	nan[2], inf[1] = float32(math.NaN()), float32(math.Inf(1))
	donor[4].row, donor[5].row = nan, inf
	donor = append(donor, entry{text: "Ġnan", row: nan}, entry{text: "Ġinf", row: inf}, entry{text: "Ġgood", row: normalRow(d, "good")})
	model, dir := made(t, m, nil, nil), made(t, donor, nil, nil)
	for _, o := range []Options{{}, {Method: "mp_rope"}, {Method: "common_interpolation"}, {Method: "common_interpolation", Cosine: true, Scheme: "barycentric"}, {Method: "common_interpolation", Scheme: "least_squares"}, {Method: "landmark_pca"}, {Method: "stb"}} {
		o.K = 3
		if o.Method == "mp_rope" { // its heads must be whole
			model, dir = made(t, m, nil, map[string]any{"head_dim": 2}), made(t, donor, nil, map[string]any{"head_dim": 2})
		}
		out, r := operated(t, model, dir, o)
		x, _ := matrixOf(t, open(t, out), "model.embed_tokens.weight")
		for i, v := range x {
			if v-v != 0 {
				t.Fatalf("%+v: value %d of token %d is %v", o, i%d, i/d, v)
			}
		}
		if !slices.Equal(x[n*d:(n+1)*d], make([]float32, d)) || slices.Equal(x[(n+2)*d:], make([]float32, d)) || r.Sites[0].Unknown != 2 || r.Sites[0].Landmarks != n-2 || len(r.Warnings) != 2 {
			t.Errorf("%+v: %v, %+v", o, x[n*d:], r.Sites[0])
		}
	}
}
