package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
)

// members are the members of a JSON object or array, as text: what is not changed keeps its bytes.
type members struct {
	array bool
	list  []member
	end   []byte // blanks and the closing bracket
}

// member is a key with its value, or an element of an array.
type member struct {
	key   string
	lead  []byte // blanks, the key and the colon
	value []byte
}

var (
	errNotJSON   = errors.New("neither an object nor an array")
	errNotObject = errors.New("no object")
)

// objectOf splits the text of an object.
func objectOf(data []byte) (*members, error) {
	m, err := membersOf(data)
	if err == nil && m.array {
		err = &Error{Err: errNotObject}
	}
	return m, err
}

// membersOf splits the text of an object or array.
func membersOf(data []byte) (*members, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	open, err := d.Token()
	if err != nil {
		return nil, &Error{Err: err}
	}
	bracket, ok := open.(json.Delim)
	if !ok || bracket != '{' && bracket != '[' {
		return nil, &Error{Err: errNotJSON}
	}
	m := &members{array: bracket == '['}
	from := d.InputOffset()
	for d.More() {
		var one member
		if !m.array {
			key, err := d.Token()
			if err != nil {
				return nil, &Error{Err: err}
			}
			one.key, _ = key.(string)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, &Error{Err: err}
		}
		to := d.InputOffset()
		// Between two members is a comma; blanks before it go.
		lead := data[from : to-int64(len(raw))]
		if len(m.list) > 0 {
			lead = bytes.TrimLeft(lead, " \t\r\n")
			lead = bytes.TrimPrefix(lead, []byte(","))
		}
		one.lead, one.value = lead, data[to-int64(len(raw)):to]
		m.list = append(m.list, one)
		from = to
	}
	if _, err := d.Token(); err != nil {
		return nil, &Error{Err: err}
	}
	m.end = data[from:]
	return m, nil
}

// keep leaves the members of which it says so.
func (m *members) keep(of func(i int, one member) bool) {
	kept := m.list[:0]
	for i, one := range m.list {
		if of(i, one) {
			kept = append(kept, one)
		}
	}
	m.list = kept
}

// with writes the members with other values for some keys. A key that is not there comes first.
func (m *members) with(values map[string][]byte) []byte {
	var b bytes.Buffer
	b.WriteByte(map[bool]byte{false: '{', true: '['}[m.array])
	n := 0
	put := func(lead, value []byte) {
		if n > 0 {
			b.WriteByte(',')
		}
		b.Write(lead)
		b.Write(value)
		n++
	}
	has := map[string]bool{}
	for _, one := range m.list {
		has[one.key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !has[key] {
			name, _ := json.Marshal(key) // of a text
			put(append(name, ':'), values[key])
		}
	}
	for _, one := range m.list {
		value := one.value
		if v, ok := values[one.key]; ok && !m.array {
			value = v
		}
		put(one.lead, value)
	}
	b.Write(m.end)
	return b.Bytes()
}
