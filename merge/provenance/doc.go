// Package provenance says what an output was made of, so that others can check it: the recipe and the options, the inputs and the
// files of the output with their hashes, and the licences that the inputs' model cards state. It knows no plan and computes no weights.
//
// The record lies beside the weights as mergekit_provenance.json and holds nothing that changes from run to run.
package provenance
