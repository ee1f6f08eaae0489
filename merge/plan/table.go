package plan

// Table tells by its name and shape whether a tensor is an embedding or a head, whose rows belong to tokens, positions or classes.
func Table(name string, shape []int) bool {
	table, _, _ := (&Plan{}).kind(&Task{Name: name, Shape: shape})
	return table
}
