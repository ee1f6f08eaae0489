package recipe

import "github.com/mergekit/mergekit/internal/strictyaml"

// Documents of other kinds (mixtures of experts) write references, dtypes and numbers as recipes do. These functions read them there.

// DecodeRef reads a model reference in either of its forms; what names it in messages.
func DecodeRef(d *strictyaml.Decoder, x strictyaml.Node, what string) (ModelRef, bool) {
	return (&decoder{d}).ref(x, what)
}

// DecodeDType reads the name of a dtype, "" where it is none.
func DecodeDType(d *strictyaml.Decoder, x strictyaml.Node, what string) string {
	return (&decoder{d}).dtype(x, what)
}

// DecodeFloat reads a number, which may be text that says one, such as 1e-5 in YAML 1.1.
func DecodeFloat(d *strictyaml.Decoder, x strictyaml.Node, what string) (float64, bool) {
	s, ok := d.Scalar(x, what)
	if !ok {
		return 0, false
	}
	f, err := toFloat(s)
	if err != nil {
		d.Errorf(x, "%s: %s", what, err)
	}
	return f, err == nil
}

// DecodeInt reads a whole number.
func DecodeInt(d *strictyaml.Decoder, x strictyaml.Node, what string) (int, bool) {
	s, ok := d.Scalar(x, what)
	if !ok {
		return 0, false
	}
	return (&decoder{d}).whole(x, s, what)
}
