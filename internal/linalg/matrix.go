package linalg

// Dense is a view of a row-major matrix. Trans means that the matrix meant is the transpose of what is stored.
type Dense[T float32 | float64] struct {
	Rows, Cols int // of the matrix meant
	Stride     int // between stored rows
	Data       []T
	Trans      bool
}

// Matrix is a matrix of float32.
type Matrix = Dense[float32]

// Matrix64 is a matrix of float64.
type Matrix64 = Dense[float64]

// Of views data as a dense matrix.
func Of(data []float32, rows, cols int) Matrix {
	return Matrix{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// Of64 views data as a dense matrix.
func Of64(data []float64, rows, cols int) Matrix64 {
	return Matrix64{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// T is the transpose, of which nothing is moved.
func (m Dense[T]) T() Dense[T] {
	return Dense[T]{Rows: m.Cols, Cols: m.Rows, Stride: m.Stride, Data: m.Data, Trans: !m.Trans}
}

// At returns the element in row i and column j.
func (m Dense[T]) At(i, j int) T {
	if m.Trans {
		i, j = j, i
	}
	return m.Data[i*m.Stride+j]
}

// Cut is the part of rows [r0, r1) and columns [c0, c1).
func (m Dense[T]) Cut(r0, r1, c0, c1 int) Dense[T] {
	s := m
	s.Rows, s.Cols = r1-r0, c1-c0
	if m.Trans {
		r0, c0 = c0, r0
	}
	if s.Rows > 0 && s.Cols > 0 {
		s.Data = m.Data[r0*m.Stride+c0:]
	}
	return s
}

// pack copies alpha times rows [i, i+mb) and columns [l, l+kb) of a in strips of r rows: for each column the r values of its rows side by
// side, zeros beyond the last row.
func pack[T float32 | float64](dst []T, alpha T, a Dense[T], i, mb, l, kb, r int) {
	for s := 0; s < mb; s += r {
		strip := dst[s*kb:][:r*kb]
		rows := min(r, mb-s)
		if rows < r {
			clear(strip)
		}
		if a.Trans { // what is a column here is stored in a row
			for k := range kb {
				to, from := strip[k*r:][:rows], a.Data[(l+k)*a.Stride+i+s:][:rows]
				if alpha == 1 {
					copy(to, from)
					continue
				}
				for row, x := range from {
					to[row] = alpha * x
				}
			}
			continue
		}
		for row := range rows {
			from := a.Data[(i+s+row)*a.Stride+l:][:kb]
			for k, x := range from {
				strip[k*r+row] = alpha * x
			}
		}
	}
}
