// Package moe assembles a mixture of experts out of dense models that have one architecture: everything but the feed-forward blocks comes
// from a base, each model's feed-forward block becomes an expert, and a router in every layer sends a token to a few of them.
//
// The words:
//
//   - An expert is the gated feed-forward block of one model, in every layer. A shared expert sees every token.
//   - The router, or gate, is a matrix with a row for each expert; a token goes to the experts whose rows have the largest inner products
//     with its hidden state. Without training, a row is drawn, or made from prompts that the expert should answer: it is their direction.
//   - A gate mode says how rows are made.
//   - A family is the architecture that the result has: Mixtral, DeepSeek MoE, Qwen2 MoE, Qwen3 MoE.
//   - The layout is how experts are stored: each matrix under a name of its own (what most tools read), or all of a layer in one tensor.
//
// The idea of upcycling dense models is Komatsuzaki et al., 2023, "Sparse upcycling: training mixture-of-experts from dense checkpoints";
// branches trained apart and assembled are Sukhbaatar et al., 2024, "Branch-Train-MiX".
//
// The corridor is Parse, Build (headers only: every error about the configuration and the models appears here), Gates (the rows of the
// router: random numbers, sums of embeddings, or a forward pass block by block), Assemble (tensors stream through tensors.Writer).
package moe
