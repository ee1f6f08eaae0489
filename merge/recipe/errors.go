package recipe

import "github.com/mergekit/mergekit/internal/strictyaml"

// Pos is a place in a recipe. Line and Col count from 1, Col in characters; the zero Pos means no particular place.
type Pos = strictyaml.Pos

// Error is a fault of a recipe: what is wrong, where, and what to do.
type Error = strictyaml.Error

// Warning is a remark about a recipe that can be merged nevertheless.
type Warning = strictyaml.Warning

// ValueError says that a setting's value does not fit the type that a method asks of it. Its text has no position, since who
// evaluates a setting knows more (parameter, tensor); Pos is the place of the very value, inside a gradient or a condition.
type ValueError struct {
	Pos Pos
	Msg string
}

// Error is the message alone.
func (e *ValueError) Error() string { return e.Msg }
