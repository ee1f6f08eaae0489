// Package plan turns a recipe and the headers of its checkpoints into a list of tasks, one for each output tensor: its
// inputs, its resolved parameters, its shape and dtype. It reads configurations and headers, never a weight, and everything
// that can be wrong with a recipe is found here.
package plan
