// Package strictyaml reads YAML documents that people write by hand: recipes and configurations.
//
// A document is read into a tree of nodes, and a schema walks that tree with a Decoder, which reports whatever does not fit with file,
// line and column, goes on, and so tells all faults in one run. Unknown keys come with the nearest known one. Scalars have the meaning
// that YAML 1.1 gives them, as in the tools from which such documents come. Aliases and merge keys are carried out, and a document that
// would grow beyond bounds is refused before it does.
//
// The package knows no schema: what a document is called, and what it must hold, say its callers.
package strictyaml
