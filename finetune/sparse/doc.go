// Package sparse is what one does with sparse fine-tunes: choosing the entries that a fine-tune moved most, composing several,
// subtracting one from a checkpoint or adding it, and converting those of other tools. How the files look is tensors/sparse; how the
// values are learnt is finetune/train.
//
// Ansell et al., 2022, "Composable sparse fine-tuning for cross-lingual transfer": a sparse fine-tune is a difference to a base that is
// zero in nearly all entries. Several for one base are added up: theta = theta0 + phi_language + phi_task. Sums are made in float64 from
// one copy of theta0 and rounded once.
package sparse
