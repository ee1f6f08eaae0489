package recipe

import "fmt"

// Pair is the setting for a tensor of that name as two numbers that stand for themselves, not for a gradient: [a, b]. It returns
// ok == false when the setting yields nothing, so that the next scope is asked.
func (s *Setting) Pair(tensor string) (pair [2]float64, ok bool, err error) {
	for i := range s.conds {
		c := &s.conds[i]
		if !c.matches(tensor) {
			continue
		}
		if len(c.values) == 0 {
			return pair, false, nil
		}
		if len(c.values) != 2 {
			return pair, false, &ValueError{Pos: c.values[0].Pos, Msg: fmt.Sprintf("two numbers [a, b] are expected, and here is %d", len(c.values))}
		}
		for k, v := range c.values {
			x, err := coerce(v, Float)
			if err != nil {
				return pair, false, err
			}
			pair[k] = x.f
		}
		return pair, true, nil
	}
	return pair, false, nil
}
