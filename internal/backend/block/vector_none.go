//go:build !(goexperiment.simd && amd64)

package block

// Vector says which vector instructions are used.
func Vector() string { return "scalar" }

func vectorKernel(*node, int) (kernel, bool) { return nil, false }

func sumFloat64(p []float64) float64 { return sum16(p) }
func sumFloat32(p []float32) float64 { return sum16(p) }

func countBins(bins []int32, one int32, indices []uint32) int32 {
	return countBinsScalar(bins, one, indices)
}

func countMasks(p []uint32) int64 { return countMasksScalar(p) }

func sumInt32(p []int32) int64 {
	s := int64(0)
	for _, v := range p {
		s += int64(v)
	}
	return s
}

var addFloat64 = add[float64](vectorVector)
