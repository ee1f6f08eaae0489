package evaluate

import (
	"slices"

	"github.com/mergekit/mergekit/model"
)

// Plain measures a network without attention on n examples: its loss, and for classes accuracy, macro-F1 and majority.
func Plain(m *model.PlainModel, x []float32, n int, l model.Labels) (*Report, error) {
	result, err := m.Loss(x, l, n)
	if err != nil {
		return nil, err
	}
	out := &Report{All: Score{Rows: n, Result: result}}
	if m.D.Loss != model.CrossEntropy {
		return out, nil
	}
	outputs, err := m.Forward(x, n)
	if err != nil {
		return nil, err
	}
	truth, chosen := make([]int, n), make([]int, n)
	for i := range n {
		row := outputs.Data[i*m.D.Output[0] : (i+1)*m.D.Output[0]]
		truth[i], chosen[i] = int(l.Classes[i]), slices.Index(row, slices.Max(row))
	}
	s := model.ScoreClasses(truth, chosen)
	out.All.Class = &s
	return out, nil
}
