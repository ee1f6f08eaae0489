// Package graft finds small regions of a fine-tune that carry its skill, and transplants them.
//
// The words:
//
//   - The space is the tensors over which a mask ranges: floating-point tensors that base and fine-tune share, without those that are
//     excluded (embeddings, head and running statistics unless asked otherwise).
//   - A mask says which entries of the space are the fine-tune's; all others are the base's. It has exactly as many as were asked for.
//   - A graft is a mask with the fine-tune's values at its entries, kept as a sparse difference (package tensors/sparse).
//
// A mask comes from magnitudes alone (the entries that fine-tuning moved most, over all tensors together), or is learned on data from
// there: Panigrahi, Saunshi, Zhao and Arora, 2023, "Task-specific skill localization in fine-tuned language models"; with a penalty on
// the size of the mask in place of an anchor at the first one: He et al., 2024, "Localize-and-Stitch".
package graft
