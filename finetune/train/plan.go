package train

import (
	"context"

	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/finetune/config"
)

// ShapePlan is a batch shape that will be compiled.
type ShapePlan struct {
	Rows   int `json:"rows"`
	Length int `json:"length"`
	Estimate
}

// Plan is what a run will do, from headers and rows; no weight is read.
type Plan struct {
	Family       string      `json:"family"`
	Steps        int         `json:"steps"`
	Rows         int         `json:"rows"`
	ValidRows    int         `json:"valid_rows"`
	PaddingShare float64     `json:"padding_share"`
	Shapes       []ShapePlan `json:"shapes"`
	Largest      Estimate    `json:"largest"`
	// MicroBatch is the largest micro batch of each length that the given memory holds.
	MicroBatch map[int]int `json:"micro_batch"`
	// Kept is how many parameters a sparse fine-tune changes; Phases how many steps each of its phases has.
	Kept   int64 `json:"kept_parameters,omitempty"`
	Phases []int `json:"phases,omitempty"`
	// Flops of the whole run, forward and backward.
	Flops    float64  `json:"flops"`
	Warnings []string `json:"warnings"`
}

// MakePlan plans a run. gpu says that it will compute in bfloat16 on a GPU; memory is what there is, in bytes, 0 if unknown.
func MakePlan(ctx context.Context, cfg *config.Config, gpu bool, memory int64) (*Plan, error) {
	s, err := open(cfg, true)
	if err != nil {
		return nil, err
	}
	defer s.ckpt.Close()
	rows, err := OpenRows(ctx, cfg)
	if err != nil {
		return nil, err
	}
	p := &Plan{Family: s.desc.ModelType, Rows: len(rows.Train.Examples), PaddingShare: rows.Batcher.PaddingShare(), Warnings: rows.Train.Report.Warnings, MicroBatch: map[int]int{}}
	if rows.Valid != nil {
		p.ValidRows = len(rows.Valid.Examples)
	}
	phases, err := phasesOf(cfg, rows.Batcher)
	if err != nil {
		return nil, err
	}
	p.Kept = s.kept()
	for _, phase := range phases {
		p.Steps += phase.steps
		if phase.name != "" {
			p.Phases = append(p.Phases, phase.steps)
		}
	}
	compute := dtypes.Float32
	if (gpu && cfg.Model.DType != "float32") || cfg.Model.DType == "bfloat16" {
		compute = dtypes.BFloat16
	}
	on16 := cfg.Run.Backend != "go" // which computes in float32 and does not convert in every pass
	at := func(n, length int) Estimate {
		e := s.estimate(cfg, n, length, on16, compute)
		if settle(e, cfg.Train.GradientCheckpointing, gpu) && !e.Recompute {
			forced := *cfg
			forced.Train.GradientCheckpointing = "block"
			e = s.estimate(&forced, n, length, on16, compute)
		}
		return e
	}
	for _, shape := range rows.Batcher.Shapes() {
		e := at(shape[0], shape[1])
		p.Shapes = append(p.Shapes, ShapePlan{shape[0], shape[1], e})
		if e.Total > p.Largest.Total {
			p.Largest = e
		}
		if memory > 0 {
			n := 1
			for n < 1<<14 && at(2*n, shape[1]).Total < memory {
				n *= 2
			}
			p.MicroBatch[shape[1]] = n
		}
	}
	epochs := map[[2]int]float64{}
	for k := range rows.Batcher.StepsPerEpoch(0) {
		for _, b := range rows.Batcher.Step(0, k) {
			epochs[[2]int{b.Rows, b.Length}]++
		}
	}
	for _, s := range p.Shapes {
		p.Flops += s.Flops * epochs[[2]int{s.Rows, s.Length}] * float64(p.Steps) / float64(max(rows.Batcher.StepsPerEpoch(0), 1))
	}
	return p, nil
}
