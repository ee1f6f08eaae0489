// Package evaluate measures models on rows: what they were tuned on, or what they must not have lost.
//
// The words:
//
//   - Loss is the mean cross-entropy of the learnt tokens of all rows together, in nats; perplexity is its exponential, token accuracy
//     the share of tokens that the model puts first.
//   - A choice is a row whose answer is one of few short labels, such as a letter. It is scored by comparing the probabilities of the
//     labels that occur in its domain, nothing else: what the model would say beside them does not count.
//   - A class is the label of a row for a model with a classification head.
//   - The majority is the accuracy of always giving the most frequent answer: what knows nothing of the rows reaches that.
package evaluate
