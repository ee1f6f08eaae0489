package method

// Passthrough copies one model's tensors, scaled where asked for: what layer stacking is made of.
var Passthrough = &Method{
	Name:    "passthrough",
	Title:   "Passthrough",
	Summary: "Copies the tensors of one model, optionally scaled; with slices it stacks layers of several models.",
	Formula: "y = x\ny = scale·x   (scale set)",
	Min:     1,
	Max:     1,
	Params: []Param{
		{Name: "scale", Kind: Float, PerInput: true, ForBase: true, Doc: "factor; unset: an exact copy"},
	},
	Reads: 1,
	Merge: mergePassthrough,
}

func mergePassthrough(t *Task) error {
	scale, scaled := t.InputFloat("scale", 0)
	if scaled && scale != 1 {
		_, err := t.Run(&Kernel{Name: "passthrough/scaled", Build: func(c *Chunk) {
			c.Emit(c.Mul(c.X(0), c.Scalar("scale")))
		}}, Values{"scale": scale})
		return err
	}
	if t.Arith == Wide || t.D == t.Out {
		return t.Copy(0)
	}
	// The cast on load loses precision before the cast on save: a plain conversion would skip it.
	_, err := t.Run(&Kernel{Name: "passthrough", Build: func(c *Chunk) { c.Emit(c.X(0)) }}, nil)
	return err
}
