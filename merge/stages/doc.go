// Package stages makes a graph of the recipes of one file: which one uses the result of which other, in what order they are made, and
// which results need no disk. It reads no checkpoint and merges nothing; package merge does.
//
// # Vocabulary
//
// A file holds documents, each of them a recipe. A document with a name is used by others wherever a reference to a model may stand. Each
// document is a stage. The output is the stage without a name, or else the last one. A stage is fused when its tensors are computed where
// a later stage reads them; any other one is written to a directory first.
package stages
