package adapter

// Role is what a tensor of an adapter is to its module.
type Role int

// The roles.
const (
	FactorA      Role = iota // [rank, in]; of an embedding [rank, vocabulary]
	FactorB                  // [out, rank]; of an embedding [dim, rank]
	FactorBias               // bias of B [out]
	Magnitude                // DoRA's, [out]
	WholeWeight              // takes the place of the weight
	WholeBias                // takes the place of the bias
	RowsOfTokens             // [tokens, dim]: take the place of some rows of an embedding
)

// Part is a tensor of an adapter with its place in a base.
type Part struct {
	Key    string
	Module Module // of the base; only its path where New
	Role   Role
	New    bool // the module is a head that the base lacks
}

// Parts lists the adapter's tensors with their modules in a base, by key. An adapter that does not fit the base is refused as Bind does.
func (a *Adapter) Parts(modules []Module) ([]Part, error) {
	// Which of two modules that share a matrix is changed does not matter here.
	if _, err := a.BindTied(modules, Untie); err != nil {
		return nil, err
	}
	b := &binding{a: a, modules: modules}
	b.index()
	var out []Part
	for _, key := range a.Keys() {
		path, end, _ := splitKey(key) // what has no place was refused above
		p := Part{Key: key, Role: roles[end]}
		if i, ok := b.find(path); ok {
			p.Module = modules[i]
		} else {
			p.Module, p.New = Module{Path: path, Kind: Linear, OutputHead: true}, true
		}
		out = append(out, p)
	}
	return out, nil
}

// roles are those of the ends of keys.
var roles = map[string]Role{
	endA: FactorA, endEmbA: FactorA, endB: FactorB, endEmbB: FactorB, endBiasB: FactorBias, endMag: Magnitude,
	endWeight: WholeWeight, endBaseW: WholeWeight, endBias: WholeBias, endBaseBias: WholeBias, endTokens: RowsOfTokens,
}
