// Package recipe reads merge recipes: one YAML document in, a Recipe with typed settings out, or errors that say file, line, column
// and what to do. It knows no tensor, no checkpoint and no merge method.
//
// # Vocabulary
//
// A recipe names a merge method and its inputs in one of three forms: models (whole models), slices (layer ranges stacked to a new
// model) or modules (one of the two for each part of a model that has several). An input is a model reference: a directory or hub
// name, optionally with a revision and an adapter. Parameters are settings that stand at an input, a slice, a module or the recipe;
// which of these scopes wins is decided where tensors are known (package plan), what one setting yields for one tensor here.
//
// A setting is a scalar, a gradient (a list of scalars laid over the layers of a slice), or a list of conditions {filter, value}
// of which the first whose filter is a part of the tensor's name counts. A setting may yield nothing; then the next scope is asked.
//
// # YAML
//
// Existing recipes were written for a YAML 1.1 loader, so scalars mean what they meant there: yes and on are true, 010 is eight,
// 1:30 is ninety, and 1e-5 is text (which numeric parameters take as a number). The syntax tree comes from go.yaml.in/yaml/v3: its
// scanner descends from libyaml, so it draws the same borders between plain scalars as the loader the recipes were written for,
// and its nodes keep text, style, line and column. Its own resolver is not asked: it follows YAML 1.2, and scalar.go resolves.
//
// A document is data from anywhere, so its size, depth and the expansion of aliases are bounded.
package recipe
