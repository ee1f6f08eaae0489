package chat

import (
	"math"
	"math/big"
)

// Object is a mapping that keeps the order of its keys, as Python's dict does: tojson writes keys in the order in which the
// row had them. Templates can also make objects whose keys are no strings; Keys leaves those out.
type Object struct {
	keys   []any
	values []any
	index  map[any]int // by hashKey; made when there are more than a few keys
}

const objectIndexFrom = 9

// Len returns the number of keys.
func (o *Object) Len() int { return len(o.keys) }

// Keys returns the keys that are strings, in order.
func (o *Object) Keys() []string {
	keys := make([]string, 0, len(o.keys))
	for _, k := range o.keys {
		if s, ok := k.(string); ok {
			keys = append(keys, s)
		}
	}
	return keys
}

// Get returns the value of a key.
func (o *Object) Get(key string) (any, bool) {
	if i := o.find(key); i >= 0 {
		return o.values[i], true
	}
	return nil, false
}

// Set changes or adds a key; a new one comes last.
func (o *Object) Set(key string, value any) { o.set(key, value) }

// Clone returns a shallow copy.
func (o *Object) Clone() *Object {
	c := &Object{}
	for i, k := range o.keys {
		c.set(k, o.values[i])
	}
	return c
}

// find looks for a key that hashKey has passed.
func (o *Object) find(key any) int {
	if o.index != nil {
		if i, ok := o.index[key]; ok {
			return i
		}
		return -1
	}
	for i, k := range o.keys {
		if h, _ := hashKey(k); h == key {
			return i
		}
	}
	return -1
}

// set takes a key that hashKey accepts.
func (o *Object) set(key, value any) {
	h, _ := hashKey(key)
	if i := o.find(h); i >= 0 {
		o.values[i] = value
		return
	}
	o.keys, o.values = append(o.keys, key), append(o.values, value)
	switch {
	case o.index != nil:
		o.index[h] = len(o.keys) - 1
	case len(o.keys) >= objectIndexFrom:
		o.index = make(map[any]int, 2*objectIndexFrom)
		for i, k := range o.keys {
			h, _ := hashKey(k)
			o.index[h] = i
		}
	}
}

type (
	noneKey  struct{}
	bigKey   string
	tupleKey string
)

// hashKey maps a value to what Go may compare such that values that are equal in Python (1, 1.0 and True) meet.
func hashKey(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case markup:
		return string(v), nil
	case nil:
		return noneKey{}, nil
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case int64:
		return v, nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<62 {
			return int64(v), nil
		}
		return v, nil
	case *big.Int:
		return bigKey(v.String()), nil
	case tuple:
		text, err := (&state{limits: defaultLimits}).repr(v)
		if err != nil {
			return nil, err
		}
		for _, item := range v {
			if _, err := hashKey(item); err != nil {
				return nil, err
			}
		}
		return tupleKey(text), nil
	case *undefined, *macro, *function:
		return v, nil
	}
	return nil, typeErrorf("unhashable type: '%s'", typeName(v))
}
