package model

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// widestFlash is the head width up to which cuDNN's fused attention goes backwards.
const widestFlash = 128

// probeFlash reports whether the device has a fused attention for this model's heads (Dao, 2023, "FlashAttention-2"): cuDNN's, in 16
// bits, without a cap on the scores. A small one is compiled, because old cards and old libraries have none.
func (m *Model) probeFlash() bool {
	half := m.Compute == dtypes.BFloat16 || m.Compute == dtypes.Float16
	if !cuda(m.Backend) || !half || m.D.AttnSoftcap != 0 || m.D.HeadDim%8 != 0 || m.D.HeadDim > widestFlash {
		return false
	}
	e, err := NewExec(m.Backend, func(in []*Node) []*Node {
		y := m.fused(in[0], in[1], in[2])
		return append([]*Node{y}, Gradient(ReduceAllSum(ConvertDType(y, dtypes.Float32)), in...)...)
	})
	if err != nil {
		return false
	}
	defer e.Finalize()
	q, k := shapes.Make(m.Compute, 1, 64, m.D.Heads, m.D.HeadDim), shapes.Make(m.Compute, 1, 64, m.D.KVHeads, m.D.HeadDim)
	_, err = e.Compile(q, k, k)
	return err == nil
}

// fused is causal attention whose scores are never in memory. q: [B,S,Heads,D]; k, v: [B,S,KVHeads,D]; the result is as q.
func (m *Model) fused(q, k, v *Node) *Node {
	q, k, v = ConvertDType(q, m.Compute), ConvertDType(k, m.Compute), ConvertDType(v, m.Compute)
	y, _ := BackendFusedScaledDotProductAttention(q, k, v, compute.AttentionAxesLayoutBSHD, &compute.ScaledDotProductAttentionConfig{Scale: m.D.Scale, Causal: true})
	return y
}

// flashes reports whether fused attention sees what Visible says for blocks of a kind: every earlier position of the row. Padding
// behind a text is seen by padding alone, which nobody reads.
func (m *Model) flashes(kind LayerKind, p passShapes) bool {
	return m.flash && p.plain && kind.Causal && (kind.Window == 0 || kind.Window >= p.x.Dim(1))
}

// attentionName tells the roles of a pass with fused attention from those without.
func (m *Model) attentionName(s *stage, p passShapes) string {
	if m.flashes(s.kind, p) {
		return " fused"
	}
	return ""
}

// attendFused makes a block's graph attend with the fused kernel, if it can.
func (m *Model) attendFused(s *stage, o *ops, p passShapes) {
	if m.flashes(s.kind, p) {
		o.attend = func(_ LayerKind, q, k, v *Node) *Node { return m.fused(q, k, v) }
	}
}

// plainRows reports whether each row is one text, with padding behind it or none.
func plainRows(in Input) bool {
	for r := 0; r < in.Rows && in.Segments != nil; r++ {
		row := in.Segments[r*in.Length : (r+1)*in.Length]
		over := false
		for i, s := range row {
			switch {
			case s == 0:
				over = true
			case over, i > 0 && s != row[0]:
				return false
			}
		}
	}
	return true
}
