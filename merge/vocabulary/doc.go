// Package vocabulary says which tokens the output of a merge has, and where each model's embeddings of them come from.
//
// Models of one family often differ in a few tokens, and fine-tunes renumber them. Before a merge method sees a tensor with an axis of
// the vocabulary (embedding, head, biases of a head), each model's rows are therefore put in the order of the output's ids:
//
//   - a row that the model has for the token is its own;
//   - a row that it lacks is one that all models share: what the recipe's tokens: says, else the row of the only model that has the
//     token, else that of the base, else the mean of the models that have it;
//   - a row that no token has (padding to a multiple, holes in the ids) is the mean of the model's rows that tokens have.
//
// The room knows tokenizers and counts of rows. It reads no weights and writes no files: package plan asks it for the rows of a tensor,
// package merge gathers them while tensors stream, and writes the tokenizer.
package vocabulary
