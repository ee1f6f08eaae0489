package samples

import (
	"fmt"

	"github.com/mergekit/mergekit/model"
)

// Of makes a set of examples that are in memory. Without labels it is not Labelled. The error is a *model.InputError.
func Of(d *model.PlainDescription, x []float32, n int, l model.Labels) (*Set, error) {
	s := &Set{X: x, N: n, Labels: l, Labelled: l.Classes != nil || l.Values != nil, width: product(d.Input), given: product(d.Output)}
	bad := func(what string, have, want int) (*Set, error) {
		return nil, &model.InputError{Msg: fmt.Sprintf("%d %s are not those of %d examples, which are %d", have, what, n, want)}
	}
	switch {
	case n < 1 || len(x) != n*s.width:
		return bad("values", len(x), n*s.width)
	case l.Classes != nil && len(l.Classes) != n:
		return bad("classes", len(l.Classes), n)
	case l.Values != nil && len(l.Values) != n*s.given:
		return bad("values to predict", len(l.Values), n*s.given)
	case s.Labelled && (l.Values != nil) != (d.Loss == model.SquaredError):
		return nil, &model.InputError{Msg: fmt.Sprintf("the labels are not those of the loss %s", d.Loss)}
	}
	return s, nil
}
