// Package connect asks whether models are linearly connected: it computes the weighted sums of their weights, measures each on
// data, and says how far the loss and the error rise between them. No file is written on the way.
//
// The words, used the same way everywhere in it:
//
//   - A point is a weighted sum of models; its weights are not negative and add up to one.
//   - A path is the straight line between two models, at points t of which 0 is the first model and 1 the second.
//   - The chord is the straight line between what the two models measure. A barrier is how far a path rises above it (Frankle et
//     al., 2020, "Linear mode connectivity and the lottery ticket hypothesis"); the other definition in use takes the mean of both
//     ends in place of the chord (Ainsworth, Hayase and Srinivasa, 2023, "Git Re-Basin"). The two agree in the middle.
//   - The simplex is all points of three models or more. Its barrier is how far a point rises above the same weighted sum of what
//     the models measure; it is estimated at the centroid, in the middle of every pair and at random points.
//
// A barrier is 0 or more, because the ends are points of the path; so the ends, the middle and the lowest point stand beside it.
package connect
