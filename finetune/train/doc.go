// Package train is the loop of fine-tuning: configuration in, adapter or checkpoint out.
//
// A run goes through these words:
//
//   - An Engine makes optimizer steps: for every micro batch a pass forward and backward (model.Backward), then clipping and
//     AdamW on what trains. It knows no file.
//   - A run directory holds the resolved configuration, metrics.jsonl, checkpoints and the result. Everything in it appears
//     whole or not at all.
//   - A checkpoint is what a run needs to go on as if it had not stopped: the trained tensors, the optimizer's moments, and
//     where it was. Batches and dropout are functions of (seed, epoch, step), so nothing else has a state.
package train
