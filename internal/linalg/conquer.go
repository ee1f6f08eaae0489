package linalg

import (
	"math"
	"sort"
)

// leaf is the order up to which a tridiagonal matrix is decomposed by rotations.
const leaf = 32

// epsilon is the distance from 1 to the next smaller float64.
const epsilon = 0x1p-53

// conquer decomposes tridiagonal matrices by halves: T is two smaller ones beside each other plus ρ·u·uᵀ, and the eigenvalues of a
// diagonal matrix plus ρ·z·zᵀ are the roots of a sum of fractions. Cuppen, 1981; the vectors are those of Gu and Eisenstat, 1994, "A
// stable and efficient algorithm for the rank-one modification of the symmetric eigenproblem", which are orthogonal however close the
// roots are. Nearly all work is products.
type conquer struct {
	n       int
	d, e    []float64
	x       []float64 // [n, n]: an eigenvector in every row; within blocks on the diagonal while it is being made
	spare   []float64 // [n, n]
	roots   []float64 // [n, n]: of every root its distances from the poles, then its vector
	threads int
}

// decompose returns the eigenvalues in ascending order and the eigenvectors as rows. d and e are used up.
func decompose(d, e []float64, threads int) (values, x []float64, ok bool) {
	n := len(d)
	c := &conquer{n: n, d: d, e: e, x: make([]float64, n*n), threads: threads}
	if n > leaf {
		c.spare, c.roots = make([]float64, n*n), make([]float64, n*n)
	}
	ok = c.split(0, n)
	return c.d, c.x, ok
}

// split decomposes rows and columns [from, to).
func (c *conquer) split(from, to int) bool {
	if to-from <= leaf {
		return c.rotate(from, to)
	}
	mid := (from + to) / 2
	b := c.e[mid-1]
	rho := math.Abs(b)
	c.d[mid-1] -= rho
	c.d[mid] -= rho
	if !c.split(from, mid) || !c.split(mid, to) {
		return false
	}
	return c.merge(from, mid, to, rho, math.Copysign(1, b))
}

// rotate decomposes a small block by implicit QL steps. Bowdler, Martin, Reinsch and Wilkinson, 1968, "The QR and QL algorithms for
// symmetric matrices".
func (c *conquer) rotate(from, to int) bool {
	m := to - from
	d, e := c.d[from:to], make([]float64, m)
	copy(e, c.e[from:to-1])
	row := func(i int) []float64 { return c.x[(from+i)*c.n+from:][:m] }
	for i := range m {
		row(i)[i] = 1
	}
	for l := range m {
		for step := 0; ; step++ {
			k := l
			for ; k+1 < m; k++ {
				if math.Abs(e[k]) <= epsilon*(math.Abs(d[k])+math.Abs(d[k+1])) {
					break
				}
			}
			if k == l {
				break
			}
			if step == 60 {
				return false
			}
			g := (d[l+1] - d[l]) / (2 * e[l])
			r := math.Hypot(g, 1)
			g = d[k] - d[l] + e[l]/(g+math.Copysign(r, g))
			s, cs, p := 1.0, 1.0, 0.0
			i := k - 1
			for ; i >= l; i-- {
				f, b := s*e[i], cs*e[i]
				r = math.Hypot(f, g)
				e[i+1] = r
				if r == 0 {
					d[i+1] -= p
					e[k] = 0
					break
				}
				s, cs = f/r, g/r
				g = d[i+1] - p
				r = (d[i]-g)*s + 2*cs*b
				p = s * r
				d[i+1] = g + p
				g = cs*r - b
				x, y := row(i), row(i+1)
				for j := range x {
					u, v := x[j], y[j]
					y[j] = s*u + cs*v
					x[j] = cs*u - s*v
				}
			}
			if r == 0 && i >= l {
				continue
			}
			d[l] -= p
			e[l] = g
			e[k] = 0
		}
	}
	for i := range m { // ascending, by selection
		k := i
		for j := i + 1; j < m; j++ {
			if d[j] < d[k] {
				k = j
			}
		}
		if k != i {
			d[i], d[k] = d[k], d[i]
			x, y := row(i), row(k)
			for j := range x {
				x[j], y[j] = y[j], x[j]
			}
		}
	}
	return true
}

// pole is one eigenvalue of the two halves.
type pole struct {
	d, z float64
	row  int // of its vector, from the block's first
	kind int // which half its vector lies in: 0 the first, 1 both, 2 the second
}

// merge joins the decompositions of [from, mid) and [mid, to).
func (c *conquer) merge(from, mid, to int, rho, sign float64) bool {
	n, m, half := c.n, to-from, mid-from
	row := func(i int) []float64 { return c.x[(from+i)*n+from:][:m] }
	poles := make([]pole, m)
	norm := 0.0
	for i := range poles {
		p := pole{d: c.d[from+i], row: i}
		if i < half {
			p.z = row(i)[half-1]
		} else {
			p.z, p.kind = sign*row(i)[half], 2
		}
		norm += p.z * p.z
		poles[i] = p
	}
	sort.SliceStable(poles, func(i, j int) bool { return poles[i].d < poles[j].d })
	norm = math.Sqrt(norm)
	largest, most := 0.0, 0.0
	for i := range poles {
		poles[i].z /= norm
		largest, most = max(largest, math.Abs(poles[i].d)), max(most, math.Abs(poles[i].z))
	}
	rho *= norm * norm
	tolerance := 8 * epsilon * max(largest, most)

	// What the update does not move, and all but one of what lies together, stays as it is.
	var live, done []pole
	for _, p := range poles {
		if rho*math.Abs(p.z) <= tolerance {
			done = append(done, p)
			continue
		}
		if len(live) == 0 {
			live = append(live, p)
			continue
		}
		q := &live[len(live)-1]
		r := math.Hypot(q.z, p.z)
		cs, s := p.z/r, -q.z/r
		gap := p.d - q.d
		if math.Abs(gap*cs*s) > tolerance {
			live = append(live, p)
			continue
		}
		// Rotate so that q has no part in the update.
		x, y := row(q.row), row(p.row)
		for j := range x {
			u, v := x[j], y[j]
			x[j] = cs*u + s*v
			y[j] = cs*v - s*u
		}
		kind := p.kind
		if q.kind != p.kind {
			kind = 1
		}
		low := pole{d: q.d*cs*cs + p.d*s*s, row: q.row, kind: kind}
		*q = pole{d: q.d*s*s + p.d*cs*cs, z: r, row: p.row, kind: kind}
		done = append(done, low)
	}
	k := len(live)
	values := make([]float64, k)
	if k > 0 && !c.update(from, half, m, rho, live, values) {
		return false
	}

	// The new vectors are in spare, row by row; put all in ascending order.
	type place struct {
		value float64
		from  []float64
	}
	places := make([]place, 0, m)
	for i, v := range values {
		places = append(places, place{v, c.spare[i*m:][:m]})
	}
	for i, p := range done {
		at := c.spare[(k+i)*m:][:m]
		copy(at, row(p.row))
		places = append(places, place{p.d, at})
	}
	sort.SliceStable(places, func(i, j int) bool { return places[i].value < places[j].value })
	for i, p := range places {
		c.d[from+i] = p.value
		copy(row(i), p.from)
	}
	return true
}

// update finds the eigenvalues of diag(d) + ρ·z·zᵀ for the live poles, and writes the vectors of the block's matrix to the first rows of
// spare, [k, m].
func (c *conquer) update(from, half, m int, rho float64, live []pole, values []float64) bool {
	k := len(live)
	d, z := make([]float64, k), make([]float64, k)
	for i, p := range live {
		d[i], z[i] = p.d, p.z
	}
	dist := c.roots[:k*k] // [j, i]: d[i] less root j
	const batch = 32
	failed := make([]bool, (k+batch-1)/batch)
	each(len(failed), c.threads, func(b int) {
		for j := b * batch; j < min(k, (b+1)*batch); j++ {
			var ok bool
			if values[j], ok = secular(d, z, rho, j, dist[j*k:][:k]); !ok {
				failed[b] = true
			}
		}
	})
	for _, f := range failed {
		if f {
			return false
		}
	}
	// The update of which the computed roots are the exact ones.
	exact := make([]float64, k)
	each(len(failed), c.threads, func(b int) {
		i0, i1 := b*batch, min(k, (b+1)*batch)
		for i := i0; i < i1; i++ {
			exact[i] = dist[i*k+i]
		}
		for j := range k {
			row := dist[j*k:][:k]
			for i := i0; i < i1; i++ {
				if i != j {
					exact[i] *= row[i] / (d[i] - d[j])
				}
			}
		}
		for i := i0; i < i1; i++ {
			exact[i] = math.Copysign(math.Sqrt(math.Abs(exact[i])), z[i])
		}
	})
	// Vectors in the order of the poles' halves, so that each half is one product.
	order := make([]int, 0, k)
	var ends [3]int
	for kind := range 3 {
		for i, p := range live {
			if p.kind == kind {
				order = append(order, i)
			}
		}
		ends[kind] = len(order)
	}
	each(len(failed), c.threads, func(b int) {
		column := make([]float64, k)
		for j := b * batch; j < min(k, (b+1)*batch); j++ {
			row := dist[j*k:][:k]
			sum := 0.0
			for i := range row {
				row[i] = exact[i] / row[i]
				sum += row[i] * row[i]
			}
			f := 1 / math.Sqrt(sum)
			for i, o := range order {
				column[i] = row[o] * f
			}
			copy(row, column)
		}
	})
	vectors := Of64(dist, k, k)
	out := Of64(c.spare[:k*m], k, m)
	first, second := ends[1], k-ends[0]
	gathered := make([]float64, max(first*half, second*(m-half)))
	for i := range first {
		copy(gathered[i*half:][:half], c.x[(from+live[order[i]].row)*c.n+from:])
	}
	Product64(out.Cut(0, k, 0, half), 1, vectors.Cut(0, k, 0, first), Of64(gathered, first, half), false, c.threads)
	for i := range second {
		copy(gathered[i*(m-half):][:m-half], c.x[(from+live[order[ends[0]+i]].row)*c.n+from+half:])
	}
	Product64(out.Cut(0, k, half, m), 1, vectors.Cut(0, k, ends[0], k), Of64(gathered, second, m-half), false, c.threads)
	return true
}

// secular finds root j of 1 + ρ·Σ z²/(d-λ), which lies between poles j and j+1, and writes the poles' distances d-λ from it. They are
// taken from the nearer pole, where they do not cancel. Steps fit a fraction to either side of the root, as Li, 1993, "Solving secular
// equations stably and efficiently" (the middle way); a step that leaves the interval halves it.
func secular(d, z []float64, rho float64, j int, dist []float64) (root float64, ok bool) {
	k := len(d)
	if k == 1 {
		dist[0] = -rho * z[0] * z[0]
		return d[0] - dist[0], true
	}
	last := j == k-1
	width := rho // z has the norm 1: the last root is at most ρ above its pole
	if !last {
		width = d[j+1] - d[j]
	}
	// The sign in the middle tells which pole is nearer.
	origin := j
	low, high := 0.0, width
	middle := 1.0
	for i := range d {
		middle += rho * z[i] * z[i] / (d[i] - d[j] - width/2)
	}
	switch {
	case middle >= 0:
		high = width / 2
	case last:
		low = width / 2
	default:
		origin = j + 1
		low, high = -width/2, 0
	}
	left := min(j, k-2) // the two poles that fractions are fitted to
	right := left + 1
	tau := (low + high) / 2
	for range 200 {
		below, above, slopeBelow, slopeAbove, size := 0.0, 0.0, 0.0, 0.0, 1.0
		for i := range d {
			x := d[i] - d[origin] - tau
			dist[i] = x
			t := z[i] / x
			v := rho * z[i] * t
			if i <= left {
				below += v
				slopeBelow += rho * t * t
			} else {
				above += v
				slopeAbove += rho * t * t
			}
			size += math.Abs(v)
		}
		f := 1 + below + above
		slope := slopeBelow + slopeAbove
		if f == 0 || math.Abs(f) <= 4*epsilon*float64(k)*size && math.Abs(f) <= 16*epsilon*(size+math.Abs(tau)*slope) {
			return d[origin] + tau, true
		}
		if f < 0 {
			low = tau
		} else {
			high = tau
		}
		// c + a/(left-η) + b/(right-η), with each side's value and slope.
		dl, dr := dist[left], dist[right]
		c := f - dl*slopeBelow - dr*slopeAbove
		a := (dl+dr)*f - dl*dr*slope
		b := dl * dr * f
		root := math.Sqrt(math.Abs(a*a - 4*b*c))
		step := 0.0
		if a <= 0 {
			step = (a - root) / (2 * c)
		} else {
			step = 2 * b / (a + root)
		}
		if !(f*step < 0) { // not towards the root, or no number
			step = -f / slope
		}
		next := tau + step
		if !(next > low && next < high) {
			next = between(low, high)
		}
		if next == tau || next == low || next == high {
			// No number is left between: the root is known to the last bit.
			return d[origin] + tau, finite(dist)
		}
		tau = next
	}
	return 0, false
}

// between halves an interval: on a scale of magnitudes where its ends are far apart, for a root may lie very near to its pole.
func between(low, high float64) float64 {
	switch {
	case low == 0 && high > 0:
		return high / 1024
	case high == 0 && low < 0:
		return low / 1024
	case low > 0 && high > 4*low:
		return math.Sqrt(low) * math.Sqrt(high)
	case high < 0 && low < 4*high:
		return -math.Sqrt(-low) * math.Sqrt(-high)
	}
	return low + (high-low)/2
}

func finite(x []float64) bool {
	for _, v := range x {
		if v == 0 || v-v != 0 {
			return false
		}
	}
	return true
}
