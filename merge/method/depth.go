package method

import "math"

// depthParam scales task vectors by depth: shallow layers serve all tasks and are changed least.
//
// Wang et al., 2025, "LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging", ICLR, eq. 3.
var depthParam = Param{Name: "depth_scale", Kind: Pair,
	Doc: "[a, b]: the merged task vector times a + b·l/(L-1) in layer l of L (LiNeS); what comes before the layers counts as the first, what comes after as the last"}

// lambda is the factor of the merged task vector in this tensor: the parameter of that name, scaled by depth.
func (t *Task) lambda() float64 {
	x := t.Float("lambda")
	if p, ok := t.Shared[depthParam.Name].([2]float64); ok {
		x *= p[0] + p[1]*t.Depth
	}
	return x
}

// checkDepth refuses a scale by depth where there is no depth.
func checkDepth(t *Task) error {
	if _, ok := t.Shared[depthParam.Name].([2]float64); ok && math.IsNaN(t.Depth) {
		return t.Refuse(depthParam.Name, -1, "%s scales by layers, and the tensors' names do not tell which comes first; remove the parameter, or use lambda with filters", depthParam.Name)
	}
	return nil
}
