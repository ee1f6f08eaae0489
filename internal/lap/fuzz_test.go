package lap

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

// FuzzMaximize solves any small matrix: bytes are float32 bits, or small integers (many ties) when the first byte is odd. The
// optimum is a textbook algorithm's, and the certificate holds.
func FuzzMaximize(f *testing.F) {
	f.Add([]byte{1, 0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 2, 2, 2, 0, 0})
	f.Add([]byte{0, 0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64})
	f.Add([]byte{0, 0, 0, 192, 127, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > 4096 {
			return
		}
		var entries []float32
		if data[0]%2 == 1 {
			for _, b := range data[1:] {
				entries = append(entries, float32(int8(b)))
			}
		} else {
			for data = data[1:]; len(data) >= 4; data = data[4:] {
				entries = append(entries, math.Float32frombits(binary.LittleEndian.Uint32(data)))
			}
		}
		n := int(math.Sqrt(float64(len(entries))))
		cost := entries[:n*n]
		s, err := Minimize(n, cost, Options{})
		var failure *NotFiniteError
		if errors.As(err, &failure) {
			if x := cost[failure.Row*n+failure.Col]; x-x == 0 {
				t.Fatalf("%v is finite", x)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(n, cost); err != nil {
			t.Fatal(err)
		}
		// Float32 spans more than float64 can sum: what is lost below the largest entry is no error.
		if want := hungarian(n, cost); math.Abs(s.Value-want) > 1e-6*math.Abs(want)+1e-12*float64(n)*largestOf(cost) {
			t.Fatalf("%v, the smallest is %v", s.Value, want)
		}
	})
}
