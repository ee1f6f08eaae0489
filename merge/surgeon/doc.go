// Package surgeon gives a model the tokenizer of another one, and rows of embeddings for the tokens that it did not have.
//
// The words of this room:
//
//   - The model is what is operated on: its body stays, its vocabulary goes. The donor gives tokenizer and vocabulary, and where its own
//     embeddings show what a token is near to, those too. The donor's rows have another width: they are never copied.
//   - Two tokens are the same if they stand for the same text, however their vocabularies write it ("Ġthe" of byte-level vocabularies,
//     "▁the" of SentencePiece, "the" beside "##the" of WordPiece), or if they play the same part (the beginning of a text, padding).
//   - A token that both have is a landmark. Its row is copied, bit for bit, and it shows how the donor's space lies to the model's.
//   - A token that the model lacks is approximated: from landmarks near it in the donor's space, from the model's tokens that spell it,
//     or from what embeddings are like in general.
//   - The operation is done once for the embeddings of the input and once, apart from those, for the output head.
//
// Nothing is held but the rows in work: landmarks are decoded block by block from the mapped file whenever they are compared with.
package surgeon
