// Package model computes with checkpoints: forward passes as GoMLX graphs, made from config.json and safetensors alone.
//
// The words, used the same way everywhere in this package:
//
//   - A Description says what a config.json means, without the family's name: sizes, norms, activation, masks, rotary tables,
//     where each tensor is. Families are small files that fill a Description in; nothing else knows them.
//   - A block is one layer. Its graph is written once (block.go) and driven by the Description.
//   - A stage is a part of the model that is compiled on its own: the stem (embeddings), one block, the head. Blocks that look
//     alike share one executable, so that a model of 80 layers compiles as fast as one of 2, and what lives between two stages
//     is all that a pass keeps in memory.
//   - A linear map is a matrix product of the field (nn.Linear, Conv1D). Adapters sit on linear maps, and a trainer cuts a block
//     there to go backwards (see Tape).
//
// Shapes: B rows of a batch, S positions, H hidden width, D head width, V vocabulary.
package model
