// Package evaluation measures weights on held-out data, and differentiates the loss there. It knows no recipe and writes no output:
// methods that choose (soups, a search) and the evaluate: of recipes are built on it.
//
// The words:
//
//   - A Judge is data that was read for models of one config.json, and one such model on the device. Weights go through it one after the
//     other: a tensor of the last ones is freed when its successor is there, and nothing is compiled again.
//   - The task is what rows ask for: lm (the learnt tokens), choice (one of few short labels, by their probabilities), classify (a class,
//     by the model's head) or values (numbers, by the squared error).
//   - Outcomes are what a model made of every row; a Score is what they come to; its Value is larger for better models, whatever the metric.
//   - An ensemble is the mean of several models' probabilities, row by row.
//   - A negative flip is a row that a parent has right and the merge has wrong; a positive flip is the reverse.
//   - A Learner is a model whose weights are moved and differentiated.
//
// Held-out data chooses; data that is reported must not choose anything.
package evaluation
