// Package merge turns a recipe into a checkpoint: it is the merge command without the terminal.
//
//	recipe.Parse -> plan.Build (headers only; every error about the recipe appears here)
//	             -> stream.Engine (tensors from mapped files through the method's graphs to their final offsets)
//	             -> tensors.Writer.Commit (index, config, card; fsync; rename)
package merge
