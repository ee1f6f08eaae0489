package model

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors/images"
)

// plainGraph builds a plain network.
type plainGraph struct {
	params map[string]*Node // tensors by name
	// train takes the statistics of the batch in batch norms; else the running ones.
	train bool
	// seen are the statistics that batch norms found, as running statistics would be updated: by tensor's name.
	seen map[string]*Node
	// fresh leaves the running statistics out of what is seen: it is that of the batch alone.
	fresh bool
	// tap is told input and output of every linear map, convolution and batch norm; nil: nobody listens.
	tap func(l *PlainLayer, x, y *Node)
}

func (g *plainGraph) list(layers []PlainLayer, x *Node) *Node {
	for i := range layers {
		x = g.layer(&layers[i], x)
	}
	return x
}

// channels shapes a vector over channels for broadcasting over a batch of x's rank.
func channels(v, x *Node) *Node {
	dims := make([]int, x.Rank())
	for i := range dims {
		dims[i] = 1
	}
	dims[1] = v.Shape().Size()
	return Reshape(v, dims...)
}

// layer applies one layer. x: [B, ...].
func (g *plainGraph) layer(l *PlainLayer, x *Node) *Node {
	b := x.Shape().Dim(0)
	weight, bias := g.params[l.Name+".weight"], g.params[l.Name+".bias"]
	switch l.Type {
	case "linear", "conv2d":
		in := x
		if l.Type == "linear" {
			x = contract(x, weight, 1)
		} else {
			x = g.convolve(l, x, weight)
		}
		x = addIf(x, bias)
		if g.tap != nil {
			g.tap(l, in, x)
		}
	case "batch_norm":
		y := g.batchNorm(l, x, weight, bias)
		if g.tap != nil {
			g.tap(l, x, y)
		}
		return y
	case "layer_norm":
		axes := make([]int, len(l.In))
		for i := range axes {
			axes[i] = i + 1
		}
		x = Sub(x, ReduceAndKeep(x, ReduceMean, axes...))
		x = Div(x, Sqrt(AddScalar(ReduceAndKeep(Square(x), ReduceMean, axes...), l.Eps)))
		if weight != nil {
			x = Mul(x, InsertAxes(weight, 0))
		}
		if bias != nil {
			x = Add(x, InsertAxes(bias, 0))
		}
		return x
	case "max_pool":
		return MaxPool(x).ChannelsAxis(images.ChannelsFirst).WindowPerAxis(l.Kernel[0], l.Kernel[1]).StridePerAxis(l.Stride[0], l.Stride[1]).
			PaddingPerDim(l.paddings()).Done()
	case "avg_pool":
		if l.CountPadding || l.Padding == [2]int{} {
			return DivScalar(windowSum(l, x), float64(l.Kernel[0]*l.Kernel[1]))
		}
		return Div(windowSum(l, x), StopGradient(windowSum(l, OnesLike(x))))
	case "global_avg_pool":
		return ReduceMean(x, 2, 3)
	case "flatten":
		return Reshape(x, b, -1)
	case "residual":
		return Add(g.list(l.Layers, x), g.list(l.Shortcut, x))
	case "relu":
		return MaxScalar(x, 0)
	case "leaky_relu":
		return Where(GreaterThan(x, ScalarZero(x.Graph(), x.DType())), x, MulScalar(x, l.Slope))
	case "gelu":
		return geluErf(x)
	case "gelu_tanh":
		return geluTanh(x)
	case "silu":
		return silu(x)
	case "tanh":
		return Tanh(x)
	case "sigmoid":
		return Sigmoid(x)
	}
	// What is left: linear maps and convolutions, which are done, and dropout, which does nothing here: training with it is the
	// trainer's.
	return x
}

// addIf adds a bias over the second axis.
func addIf(x, bias *Node) *Node {
	if bias == nil {
		return x
	}
	return Add(x, channels(bias, x))
}

// paddings are the same on both sides.
func (l *PlainLayer) paddings() [][2]int {
	return [][2]int{{l.Padding[0], l.Padding[0]}, {l.Padding[1], l.Padding[1]}}
}

// windowSum sums the windows of every channel: a convolution of each channel with ones, since GoMLX's own gradient of summed
// windows pads by negative numbers, at which its Go backend panics.
func windowSum(l *PlainLayer, x *Node) *Node {
	ones := Ones(x.Graph(), shapes.Make(x.DType(), 1, 1, l.Kernel[0], l.Kernel[1]))
	y := convolution(l, Reshape(x, -1, 1, l.In[1], l.In[2]), ones)
	return Reshape(y, append([]int{x.Shape().Dim(0)}, l.Out...)...)
}

// convolution is torch's conv2d of one group, in a form that GoMLX differentiates rightly: its gradient is shifted by one for
// kernels of even size, so those get a row or column of zeros at their end, and it refuses paddings of the kernel's size and more,
// so such images are padded beforehand.
func convolution(l *PlainLayer, x, weight *Node) *Node {
	pads := l.paddings()
	for i := range 2 {
		axis := 2 + i
		reach := l.Dilation[i]*(l.Kernel[i]-1) + 1
		if reach%2 == 0 {
			weight = Concatenate([]*Node{weight, ZerosLike(SliceAxis(weight, axis, AxisElem(0)))}, axis)
			pads[i][1] += l.Dilation[i]
			reach += l.Dilation[i]
		}
		if max(pads[i][0], pads[i][1]) < reach {
			continue
		}
		border := func(n int) *Node {
			dims := append([]int{}, x.Shape().Dimensions...)
			dims[axis] = n
			return Zeros(x.Graph(), shapes.Make(x.DType(), dims...))
		}
		if pads[i][0] > 0 {
			x = Concatenate([]*Node{border(pads[i][0]), x}, axis)
		}
		x = Concatenate([]*Node{x, border(pads[i][1])}, axis)
		pads[i] = [2]int{}
	}
	c := Convolve(x, weight).ChannelsAxis(images.ChannelsFirst).PaddingPerDim(pads)
	if l.Dilation != [2]int{1, 1} {
		return c.DilationPerAxis(l.Dilation[0], l.Dilation[1]).Done()
	}
	return c.StridePerAxis(l.Stride[0], l.Stride[1]).Done()
}

// convolve is torch's conv2d without the bias. Groups are convolved one by one, since the gradient of a grouped convolution is not
// known to GoMLX.
func (g *plainGraph) convolve(l *PlainLayer, x, weight *Node) *Node {
	if l.Groups > 1 {
		in, out := l.In[0]/l.Groups, l.Out[0]/l.Groups
		one := *l
		one.Groups = 1
		var parts []*Node
		for i := range l.Groups {
			parts = append(parts, g.convolve(&one, SliceAxis(x, 1, AxisRange(i*in, (i+1)*in)), SliceAxis(weight, 0, AxisRange(i*out, (i+1)*out))))
		}
		return Concatenate(parts, 1)
	}
	return convolution(l, x, weight)
}

// batchNorm normalises channels (Ioffe and Szegedy, 2015): by the running statistics, or in training by the batch's, which then
// move the running ones. As in torch the running variance is the unbiased one.
func (g *plainGraph) batchNorm(l *PlainLayer, x, weight, bias *Node) *Node {
	mean, variance := g.params[l.Name+".running_mean"], g.params[l.Name+".running_var"]
	if g.train {
		axes := []int{0}
		for i := 2; i < x.Rank(); i++ {
			axes = append(axes, i)
		}
		n := float64(x.Shape().Size() / l.In[0])
		batchMean := ReduceMean(x, axes...)
		batchVar := ReduceMean(Square(Sub(x, channels(batchMean, x))), axes...)
		move := func(old, now *Node) *Node {
			if g.fresh {
				return StopGradient(now)
			}
			return StopGradient(Add(MulScalar(old, 1-l.Momentum), MulScalar(now, l.Momentum)))
		}
		g.seen[l.Name+".running_mean"] = move(mean, batchMean)
		g.seen[l.Name+".running_var"] = move(variance, MulScalar(batchVar, n/max(n-1, 1)))
		mean, variance = batchMean, batchVar
	}
	x = Div(Sub(x, channels(mean, x)), Sqrt(AddScalar(channels(variance, x), l.Eps)))
	if weight != nil {
		x = Mul(x, channels(weight, x))
	}
	return addIf(x, bias)
}

// plainLoss returns the sum over examples of the loss, weighted, and of the examples that are right. y: [B, ...]; labels: int32 [B]
// of classes, or float32 of y's shape; weights: float32 [B].
func plainLoss(kind string, y, labels, weights *Node) (loss, correct *Node) {
	g := y.Graph()
	if kind == SquaredError {
		b := y.Shape().Dim(0)
		each := ReduceMean(Reshape(Square(Sub(y, labels)), b, -1), 1)
		return ReduceAllSum(Mul(weights, each)), ScalarZero(g, dtypes.Float32)
	}
	dims := y.Shape().Dimensions
	top := StopGradient(ReduceMax(y, 1))
	picked := Equal(Iota(g, shapes.Make(dtypes.Int32, dims...), 1), BroadcastToDims(InsertAxes(labels, -1), dims...))
	value := ReduceSum(Where(picked, y, ZerosLike(y)), 1)
	lse := Add(Log(ReduceSum(Exp(Sub(y, InsertAxes(top, -1))), 1)), top)
	return ReduceAllSum(Mul(weights, Sub(lse, value))), ReduceAllSum(Mul(weights, ConvertDType(GreaterOrEqual(value, top), dtypes.Float32)))
}

// plainObjective is plainLoss for any objective.
func plainObjective(objective Objective, kind string, y, labels, weights *Node) (value, correct *Node) {
	if objective == ObjectiveEntropy {
		h, _, _ := entropy(y)
		return ReduceAllSum(Mul(weights, h)), ScalarZero(y.Graph(), dtypes.Float32)
	}
	return plainLoss(kind, y, labels, weights)
}
