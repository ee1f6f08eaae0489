package adapter

import (
	"math"
	"slices"

	"github.com/mergekit/mergekit/arch/checkpoint"
)

// Inspection says what an adapter is.
type Inspection struct {
	Dir        string             `json:"dir"`
	Format     string             `json:"format"` // peft or mlx
	BaseModel  string             `json:"base_model,omitempty"`
	TaskType   string             `json:"task_type,omitempty"`
	Kind       string             `json:"kind"` // LoRA, rsLoRA, DoRA
	Rank       int                `json:"r"`
	Alpha      float64            `json:"alpha"`
	Dropout    float64            `json:"dropout"`
	Init       string             `json:"init"`
	Targets    []string           `json:"target_modules"`
	Saved      []string           `json:"modules_to_save,omitempty"`
	Bias       string             `json:"bias"`
	Parameters int64              `json:"parameters"`
	Bytes      int64              `json:"bytes"`
	DTypes     map[string]int     `json:"dtypes"`
	Modules    []ModuleInspection `json:"modules"`
	Whole      []TensorInspection `json:"whole,omitempty"`
	NonFinite  int64              `json:"non_finite"` // values that are NaN or infinite
	Idle       int                `json:"idle"`       // modules whose B or A is zero: they change nothing
	Warnings   []string           `json:"warnings,omitempty"`
}

// ModuleInspection is a module with factors.
type ModuleInspection struct {
	Module    string  `json:"module"`
	Rank      int     `json:"rank"`
	Alpha     float64 `json:"alpha"`
	Scale     float64 `json:"scale"`
	In        int     `json:"in"`
	Out       int     `json:"out"`
	Norm      Float   `json:"norm"` // ‖s·B·A‖
	NormA     Float   `json:"norm_a"`
	NormB     Float   `json:"norm_b"`
	Share     Float   `json:"share,omitempty"` // Norm / ‖W‖, with a base
	NonFinite int64   `json:"non_finite,omitempty"`
}

// TensorInspection is a tensor that is held whole.
type TensorInspection struct {
	Key       string `json:"key"`
	Shape     []int  `json:"shape"`
	Norm      Float  `json:"norm"`
	NonFinite int64  `json:"non_finite,omitempty"`
}

// Inspect reads an adapter of peft or mlx-lm and measures it.
func Inspect(dir string) (*Inspection, error) {
	r := &Inspection{Dir: dir, Format: "peft", DTypes: map[string]int{}}
	open := Open
	if IsMLX(dir) {
		r.Format, open = "mlx", OpenMLX
	}
	a, err := open(dir)
	if err != nil {
		return nil, err
	}
	file, err := checkpoint.Open(a.File())
	if err != nil {
		return nil, err
	}
	for _, n := range file.Names() {
		info, _ := file.Lookup(n)
		r.DTypes[info.DType.String()]++
	}
	r.Bytes = file.TotalBytes()
	_ = file.Close()
	c := a.Config
	r.BaseModel, r.TaskType, r.Rank, r.Alpha, r.Dropout, r.Init, r.Bias = c.BaseModel, c.TaskType, c.R, c.Alpha, c.Dropout, c.Init, c.Bias
	r.Kind = "LoRA"
	if c.RSLoRA {
		r.Kind = "rsLoRA"
	}
	if c.DoRA {
		r.Kind = "DoRA"
	}
	switch {
	case c.Targets.AllLinear:
		r.Targets = []string{"all-linear"}
	case c.Targets.Regex != "":
		r.Targets = []string{c.Targets.Regex}
	default:
		r.Targets = slices.Sorted(slices.Values(c.Targets.Names))
	}
	r.Saved = c.Saved()
	r.Warnings = append(r.Warnings, a.Warnings...)
	for _, key := range a.Keys() {
		r.measure(a, key)
	}
	if r.NonFinite > 0 {
		r.Warnings = append(r.Warnings, "holds NaN or infinite values: its training diverged")
	}
	if r.Idle > 0 && r.Idle == len(r.Modules) && len(r.Whole) == 0 {
		r.Warnings = append(r.Warnings, "changes nothing: A or B is zero in every module, as before training")
	}
	return r, nil
}

func (r *Inspection) measure(a *Adapter, key string) {
	t := a.Tensors[key]
	norm, bad := size(t.Data)
	r.Parameters += int64(len(t.Data))
	r.NonFinite += bad
	path, end, ok := splitKey(key)
	if !ok {
		r.Warnings = append(r.Warnings, key+": is no tensor of an adapter that peft writes")
		return
	}
	switch end {
	case endB, endEmbB, endBiasB, endMag:
		return
	case endA, endEmbA:
	default:
		r.Whole = append(r.Whole, TensorInspection{key, t.Shape, Float(norm), bad})
		return
	}
	other := endB
	if end == endEmbA {
		other = endEmbB
	}
	b, there := a.Tensors[prefix+path+other]
	if !there || len(t.Shape) != 2 || len(b.Shape) != 2 || t.Shape[0] != b.Shape[1] {
		r.Warnings = append(r.Warnings, key+": has no other half that fits")
		return
	}
	rank, alpha, scale := a.Config.Scale(path)
	if rank != t.Shape[0] {
		r.Warnings = append(r.Warnings, key+": has another rank than the configuration says")
	}
	m := ModuleInspection{Module: path, Rank: t.Shape[0], Alpha: alpha, Scale: scale, In: t.Shape[1], Out: b.Shape[0], NormA: Float(norm)}
	normB, badB := size(b.Data)
	m.NormB, m.NonFinite = Float(normB), bad+badB
	m.Norm = Float(newLowRank(Module{Kind: Linear, In: m.In, Out: m.Out}, t.Data, b.Data, m.Rank, scale).norm())
	if m.Norm == 0 {
		r.Idle++
	}
	r.Modules = append(r.Modules, m)
}

// size is the norm of the finite values, and how many are not.
func size(x []float32) (norm float64, bad int64) {
	for _, v := range x {
		if v-v != 0 {
			bad++
			continue
		}
		norm += float64(v) * float64(v)
	}
	return math.Sqrt(norm), bad
}

// Against measures the modules against the weights of a base, and says whether the adapter fits it.
func (r *Inspection) Against(base string) error {
	s, err := openSide(base)
	if err != nil {
		return err
	}
	defer s.ckpt.Close()
	open := Open
	if r.Format == "mlx" {
		open = OpenMLX
	}
	a, err := open(r.Dir)
	if err != nil {
		return err
	}
	tie := Refuse
	if slices.ContainsFunc(s.modules, func(m Module) bool { return m.Tied }) {
		tie = Untie // only to measure: no policy is asked for here
	}
	deltas, err := a.BindTied(s.modules, tie)
	if err != nil {
		return err
	}
	share := map[string]Float{}
	for i := range deltas {
		d := &deltas[i]
		if d.low == nil || d.From == "" {
			continue
		}
		v, err := s.ckpt.View(d.From)
		if err != nil {
			return err
		}
		t, err := decode(v)
		if err != nil {
			return err
		}
		norm, _ := size(t.Data)
		share[core(d.Module.Path)] = Float(d.Norm() / norm)
	}
	for i := range r.Modules {
		r.Modules[i].Share = share[core(r.Modules[i].Module)]
	}
	return nil
}
