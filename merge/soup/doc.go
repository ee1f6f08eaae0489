// Package soup finds how much of each model belongs into an average of models, by what averages do on held-out data.
//
// Vocabulary. An ingredient is a model, read tensor by tensor. A mix is a sum of ingredients, each times a number of its own for every
// tensor; it is computed where it is read and exists nowhere as a whole, so that any number of ingredients costs the memory of none of
// them. A greedy soup (Greedy) takes ingredients in, one after the other, as long as the mix gets no worse. A learned soup (Learn)
// goes down the gradient of the mix's loss by the numbers; AdaMerging is the same for task vectors, with the entropy of what the mix
// predicts in the place of a loss. Fisher takes numbers for every single entry: how much the ingredient's own likelihood depends on
// it.
//
// The package knows no recipes, no output and no data: package evaluation measures mixes and differentiates them, package merge puts
// all together.
package soup
