package arch

// Plain describes tensors that are no model's: their names as they stand, in order, without layers, ties, aliases or vocabulary. optional
// says which of them inputs may lack; nil means none.
func Plain(names []string, optional func(name string) bool) *Arch {
	m := Module{Name: "default"}
	for _, n := range names {
		m.Pre = append(m.Pre, Weight{Name: escape(n), VocabAxis: -1, Optional: optional != nil && optional(n)})
	}
	return &Arch{Name: "plain", Inferred: true, Modules: []Module{m}}
}
